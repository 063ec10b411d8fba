"""What must hold after every scenario, whatever its fault was: nothing ran twice, no checkpoint was lost, nothing is left over."""

from collections.abc import Iterable
from typing import Any

from lprl_api.names import ExitCode

Entry = dict[str, Any]
ENDS = {"Succeeded": "Complete", "Failed": "Failed"}
PHASES = {"Succeeded", "Failed", "Suspended", "Running", "Pending", "Inspecting", "Converting", "Provisioning", "Restarting"}


class Fence:
    """The checkpoint folder of one job of a name, as its drivers' log tells it."""

    def __init__(self, cut_off: bool) -> None:
        self._cut_off = cut_off
        self._owner, self._attempt, self._step, self._kept = "", 0, 0, 0
        self._alive: set[str] = set()

    def saw(self, entry: Entry) -> None:
        """Check one line of the log against those before it."""
        event, attempt = entry["event"], entry["attempt"]
        assert event != "bug", entry
        if event == "start":
            self._starts(entry)
        elif event in ("end", "killed"):
            self._alive.discard(entry["pod"])
            late = event == "end" and attempt < self._attempt
            assert not late or entry["code"] == ExitCode.FENCED, f"the driver of an earlier attempt ended with another word: {entry}"
        elif event == "step":
            assert attempt == self._attempt, f"attempt {attempt} made a step while {self._attempt} owned the folder"
            assert entry["step"] == self._step + 1, f"step {entry['step']} after {self._step}"
            self._step = entry["step"]
        elif event == "kept":
            assert attempt == self._attempt, f"attempt {attempt} wrote a checkpoint while {self._attempt} owned the folder"
            assert entry["step"] >= self._kept, f"checkpoint {entry['step']} after {self._kept}"
            self._kept = entry["step"]

    def _starts(self, entry: Entry) -> None:
        attempt = entry["attempt"]
        if entry["job_uid"] != self._owner:
            self._owner, self._attempt, self._kept = entry["job_uid"], 0, 0
        # On a node that is cut off the old driver may run on: the fence of the folder ends it at its next step.
        assert self._cut_off or not self._alive, f"attempt {attempt} began while {self._alive} (attempt {self._attempt}) ran"
        assert attempt > self._attempt, f"attempt {attempt} began twice or after {self._attempt}"
        assert entry["step"] == self._kept, f"attempt {attempt} began at step {entry['step']}; the newest checkpoint was {self._kept}"
        self._attempt, self._step = attempt, entry["step"]
        self._alive.add(entry["pod"])


def check_log(entries: Iterable[Entry], cut_off: bool = False) -> None:
    """Nothing ran twice, and every attempt began at the newest checkpoint."""
    fence = Fence(cut_off)
    for entry in entries:
        fence.saw(entry)


def check_status(name: str, status: dict[str, Any]) -> None:
    """Phase and conditions say the same."""
    conditions = {c["type"]: c["status"] for c in status.get("conditions", ())}
    phase = status.get("phase", "Pending")
    assert phase in PHASES, f"{name}: {phase}"
    for kind in ("Complete", "Failed"):
        assert (conditions.get(kind) == "True") == (ENDS.get(phase) == kind), f"{name} is {phase}: {conditions}"
    assert (phase in ENDS) == ("completionTime" in status), f"{name} is {phase}: {status.get('completionTime')}"
    if phase == "Succeeded":
        training = status["training"]
        assert training["summary"] == f"{training['steps']}/{training['steps']}", f"{name}: {training}"
    assert status.get("restartsUsed", 0) <= max(0, status.get("attempt", 0) - 1), f"{name}: {status}"
