"""Progress (driver -> operator) and Control (operator -> driver), two keys of one ConfigMap."""

from typing import Literal

from lprl_api.base import Contract, Documented, NonNegativeInt
from lprl_api.topology import Stability

MESSAGE_CHARACTERS = 500
"""Longest message of a report."""
DriverPhase = Literal[
    "starting",
    "loading",
    "syncing",
    "generating",
    "training",
    "evaluating",
    "checkpointing",
    "exporting",
    "held",
    "stopping",
    "finished",
]


class EvaluationResult(Documented):
    """One held-out evaluation."""

    step: NonNegativeInt
    """Finished rollout steps when it was made."""
    reward: float
    """Mean reward of the held-out responses."""
    pass_at: dict[str, float] = {}
    """pass@k by k."""


class CheckpointRef(Documented):
    """The newest complete checkpoint."""

    step: NonNegativeInt
    """Finished rollout steps it holds."""
    path: str
    """VOLUME:PATH."""


class StabilityReport(Contract):
    """State of the mismatch guard."""

    state: Literal["measuring", "stable", "drifting", "corrected", "held", "rolled-back", "fallback-bf16"] = "measuring"
    metric: str = "k3"
    value: float | None = None
    baseline: float | None = None
    limit: float | None = None
    since_step: NonNegativeInt | None = None


class Progress(Contract):
    """What the driver knows of the run; numbers are of the last finished step."""

    schema_version: Literal[1] = 1
    attempt: NonNegativeInt
    sequence: NonNegativeInt
    """Grows with every report of an attempt; the operator measures stalls by its own clock when this changes."""
    phase: DriverPhase
    """`starting` until the workers are there: nothing is trained yet and nothing is known of earlier steps."""
    step: NonNegativeInt
    """Finished rollout steps."""
    steps: NonNegativeInt
    weight_version: NonNegativeInt = 0
    reward: float | None = None
    mismatch_k3: float | None = None
    logprob_diff: float | None = None
    tokens_per_second: float | None = None
    step_seconds: float | None = None
    sync_seconds: float | None = None
    seconds_left: float | None = None
    evaluation: EvaluationResult | None = None
    checkpoint: CheckpointRef | None = None
    export: str | None = None
    stability: StabilityReport = StabilityReport()
    effective_rollout: Literal["bf16", "fp8", "int4"] | None = None
    """Set when the guard changed what is served."""
    engine_restarts: NonNegativeInt = 0
    trainer_restarts: NonNegativeInt = 0
    message: str = ""


class Control(Contract):
    """What the operator asks of the driver; read in the answer to each progress patch."""

    schema_version: Literal[1] = 1
    suspend: bool = False
    steps: NonNegativeInt
    stability: Stability


class Termination(Contract):
    """The driver's and the converters' termination message (at most 4096 bytes as JSON)."""

    reason: str
    """A constant of names.Reason, or Succeeded."""
    message: str
    progress: Progress | None = None
