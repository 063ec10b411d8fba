"""What a simulated driver does, read from its pod's annotation, and what outlives it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

ANNOTATION = "sim.lprl.dev/driver"
CUT_OFF = "sim.lprl.dev/cut-off"
"""Of a pod: its node hears nothing and tells nothing, though the containers run on."""


@dataclass(frozen=True)
class Script:
    """What one job's drivers do."""

    step_s: float = 0.2
    """Seconds a step takes."""
    report_s: float = 1.0
    """Shortest time between two reports of a driver that trains or hangs: each costs an API server, an operator and every watch work."""
    wait_s: float = 1.0
    """Seconds between reports while it waits for workers."""
    jitter: bool = False
    """Steps take between half and one and a half times as long: a thousand drivers do not report in one moment."""
    loads_long: bool = False
    """Once it has its workers and said so, it loads its model, without a word, until the simulator gets SIGUSR1."""
    silent: bool = False
    """Report once, then train for ever without a word."""
    keep_every: int = 2
    """Steps between checkpoints: where the next attempt goes on."""
    crash: Mapping[str, Any] | None = None
    """{"attempts": [1], "step": 2, "code": 1, "message": ""}: ends so, once per listed attempt."""
    hang: Mapping[str, Any] | None = None
    """{"attempts": [1], "step": 2}: its main thread stands still, and its reporting thread goes on and says in what."""
    stopped: Mapping[str, Any] | None = None
    """{"attempts": [1], "step": 2}: the whole process stands still (SIGSTOP): no report comes any more."""
    hold_at: int | None = None
    """Goes on reporting, without a further step, until the annotation changes."""
    stability: Mapping[str, Any] | None = None
    """A StabilityReport."""
    deaf: bool = False
    """Never obeys a suspend."""
    survives: bool = False
    """Goes on after its pod was marked for deletion, as on a node that is cut off, until the pod is gone."""

    @classmethod
    def of(cls, pod: Mapping[str, Any]) -> "Script":
        """Read a pod's annotation."""
        known = {f.name for f in fields(cls)}
        found = json.loads((pod["metadata"].get("annotations") or {}).get(ANNOTATION, "{}"))
        unknown = set(found) - known
        assert not unknown, f"{ANNOTATION}: {unknown}"
        return cls(**found)


@dataclass
class Store:
    """What outlives a driver: the checkpoint folder of one job."""

    newest_attempt: int = 0
    step: int = 0
