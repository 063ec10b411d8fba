"""`lprl run` after a run that failed, finished or was interrupted: never the old failure again, never checkpoints moved unasked."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from lprl_api.derived.run_folder import Owner
from lprl_api.derived.trained import trained_document
from lprl_api.errors import UserError
from lprl_api.names import all_reasons
from lprl_api.rules.parse import parse_job
from lprl_cli import again
from lprl_cli.commands.run import REMEDIES, finish, remedy_of
from lprl_cli.runfolder import RunFolder, run_folder_of

JOB: dict[str, Any] = {
    "apiVersion": "lprl.dev/v1alpha1",
    "kind": "LowPrecisionRLJob",
    "metadata": {"name": "toy"},
    "spec": {
        "model": {"source": {"volume": "models", "path": "toy"}},
        "conversion": {"volume": "models"},
        "data": {"prompts": {"volume": "models", "path": "train.jsonl"}},
        "algorithm": {"steps": 40},
        "checkpoint": {"volume": "models"},
        "volumes": {"models": {"persistentVolumeClaim": "models"}},
    },
}


def changed(path: str = "", value: Any = None) -> dict[str, Any]:
    """The manifest with one dotted field of its spec set."""
    found = copy.deepcopy(JOB)
    if path:
        *parts, leaf = path.split(".")
        inner = found["spec"]
        for part in parts:
            inner = inner.setdefault(part, {})
        inner[leaf] = value
    return found


def earlier(root: Path, phase: str | None, step: int | None, owner: bool = True, reason: str = "UserError") -> RunFolder:
    """What a run of JOB left: its state where it had a phase, its checkpoint where it had a step."""
    found = RunFolder(root / "runs" / "toy", run_folder_of(JOB, root / "volumes"), root / "volumes")
    assert found.state is not None
    found.state.mkdir(parents=True)
    (found.state / "lock").write_text("")
    if phase is not None:
        conditions = (
            [{"type": "Failed", "status": "True", "reason": reason, "message": "row 3:\n too long; drop it"}] if phase == "Failed" else []
        )
        meta = {**JOB["metadata"], "namespace": "default", "uid": "old"}
        document = {**JOB, "metadata": meta, "status": {"phase": phase, "conditions": conditions}}
        (found.state / "job.json").write_text(json.dumps(document))
    if step is not None:
        (found.run / f"step-{step:06d}").mkdir(parents=True)
        noted = Owner(namespace="default", name="toy", uid="old", trained=trained_document(parse_job(JOB).spec))
        if owner:
            (found.run / "owner.json").write_text(noted.model_dump_json(by_alias=True))
    return found


SAME = ""
ALLOWED: list[tuple[str, Any]] = [
    ("failurePolicy.maxRestarts", 9),
    ("algorithm.steps", 60),
    ("topology.nodes", 2),
    ("checkpoint.everySteps", 5),
    ("activeDeadlineSeconds", 600),
    ("podTemplate.head.resources.limits.memory", "8Gi"),
]


@pytest.mark.parametrize(("path", "value"), [(SAME, None), *ALLOWED], ids=lambda v: str(v))
@pytest.mark.parametrize("step", [None, 20])
def test_a_failed_run_is_tried_again_from_its_checkpoint(tmp_path: Path, step: int | None, path: str, value: Any) -> None:
    found = earlier(tmp_path, "Failed", step)
    way = again.way(found, changed(path, value))
    assert way.how == "anew" and "failed; it is tried again" in way.words
    assert ("from step 20" if step else "at step 0") in way.words


TRAINED: list[tuple[str, Any]] = [
    ("optimizer.learningRate", 0.5),
    ("algorithm.seed", 3),
    ("data.maxPromptTokens", 64),
    ("sampling.temperature", 0.3),
    ("precision.rollout", "fp8"),
    ("model.source.path", "other"),
]


LEFT = [("Failed", True), ("Succeeded", True), ("Running", True), (None, True), ("Failed", False), ("Running", False)]


@pytest.mark.parametrize(("phase", "owner"), LEFT, ids=lambda v: str(v))
@pytest.mark.parametrize(("path", "value"), TRAINED, ids=[t[0] for t in TRAINED])
def test_what_would_train_something_else_is_refused_by_its_field(
    tmp_path: Path, phase: str | None, owner: bool, path: str, value: Any
) -> None:
    """Also where an earlier version noted nothing in the run folder: the state folder has its manifest."""
    found = earlier(tmp_path, phase, 20, owner)
    with pytest.raises(UserError, match=rf"holds step 20 of job default/toy .*spec\.{path} was") as caught:
        again.way(found, changed(path, value))
    assert "--restart" in caught.value.remedy and "another metadata.name" in caught.value.remedy


@pytest.mark.parametrize(("path", "value"), TRAINED[:2])
def test_without_a_checkpoint_any_correction_begins(tmp_path: Path, path: str, value: Any) -> None:
    assert again.way(earlier(tmp_path, "Failed", None), changed(path, value)).how == "anew"


CALM = [
    pytest.param("Succeeded", SAME, None, "finished", id="finished"),
    pytest.param("Succeeded", "algorithm.steps", 60, "anew", id="finished-and-given-more-steps"),
    pytest.param("Running", SAME, None, "goes-on", id="interrupted"),
    pytest.param("Suspended", "suspend", False, "goes-on", id="resumed"),
    pytest.param("Running", "failurePolicy.maxRestarts", 9, "anew", id="interrupted-and-corrected"),
    pytest.param(None, SAME, None, "new", id="its-state-was-deleted"),
]


@pytest.mark.parametrize(("phase", "path", "value", "how"), CALM)
def test_how_a_run_begins(tmp_path: Path, phase: str | None, path: str, value: Any, how: str) -> None:
    way = again.way(earlier(tmp_path, phase, 20), changed(path, value))
    assert way.how == how
    assert bool(way.words) == (how != "goes-on")


def test_a_new_life_keeps_the_checkpoints_and_the_earlier_state(tmp_path: Path) -> None:
    found = earlier(tmp_path, "Failed", 20)
    assert found.state is not None
    old = again.set_aside(found, run_too=False)
    assert old is not None and (old / "job.json").exists() and found.job() == {}
    assert (found.run / "step-000020").is_dir() and [p.name for p in found.state.iterdir()] == ["lock"]
    (found.state / "job.json").write_text("{}")
    assert again.set_aside(found, run_too=True) not in (None, old), "two in one second"
    assert not found.run.exists() and len(list(found.run.parent.glob("toy.before-*"))) == 1


@pytest.mark.parametrize("step", [None, 20])
@pytest.mark.parametrize("reason", sorted({*REMEDIES, "HeadLost", "SomethingNew"}))
def test_a_failure_is_one_line_and_its_remedy_never_starts_over(
    tmp_path: Path, reason: str, step: int | None, capsys: pytest.CaptureFixture[str]
) -> None:
    found = earlier(tmp_path, "Failed", step, reason=reason)
    assert finish(found, report=False) == 10
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"error: {reason}: row 3: too long; drop it"
    assert len(lines) == 2 and lines[1].startswith("  fix: ") and "run the same command again" in lines[1] and "--restart" not in lines[1]
    assert ("it goes on from step 20" if step else "it starts at step 0") in lines[1]


def test_every_reason_with_a_remedy_is_one() -> None:
    assert set(REMEDIES) <= set(all_reasons())
    assert "lprl logs runs/toy" in remedy_of("RestartsExhausted", Path("runs/toy"), 3)
