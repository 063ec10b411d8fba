"""CPU and memory of the processes that take part, read from /proc; what others on the machine used is told too."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.control_plane.harness.operator import Operator
from tests.control_plane.harness.plane import ControlPlane

TICKS = os.sysconf("SC_CLK_TCK")
KIT = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "ray-operator")


def cpu_of(pid: int) -> float:
    """CPU seconds of a process so far; 0 when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS


def machine_busy() -> float:
    """CPU seconds of the whole machine so far, idle apart."""
    fields = [int(x) for x in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    return (sum(fields[:3]) + sum(fields[5:8])) / TICKS


class Meter:
    """CPU of every part of a run."""

    def __init__(self, plane: ControlPlane, more: dict[str, int]) -> None:
        self.parts = {name: plane.pid(name) for name in KIT} | more | {"benchmark": os.getpid()}

    def read(self) -> dict[str, float]:
        """CPU seconds by part, `others` for everything else on the machine."""
        found = {name: cpu_of(pid) for name, pid in self.parts.items()}
        return {**found, "others": machine_busy() - sum(found.values())}

    @contextmanager
    def spent(self, into: dict[str, float]) -> Iterator[None]:
        """Store what was spent inside the block, in CPU seconds by part, and `wall`."""
        before, began = self.read(), time.monotonic()
        yield
        into.update({name: value - before.get(name, 0.0) for name, value in self.read().items()})
        into["wall"] = time.monotonic() - began


def api_calls(operator: Operator) -> dict[str, float]:
    """Requests the operator made, by `VERB resource`; watches (and their lists) are kopf's and not in it."""
    found: dict[str, float] = {}
    for name, value in operator.metrics().items():
        if name.startswith("lprl_api_requests_total{"):
            labels = dict(part.split("=", 1) for part in name[name.index("{") + 1 : -1].split(","))
            key = f"{labels['verb']} {labels['resource']}".replace('"', "")
            found[key] = found.get(key, 0.0) + value
    return found
