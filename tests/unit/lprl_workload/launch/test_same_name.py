"""A name used again: whose checkpoints lie in a run folder is known, and nothing goes on from what was trained otherwise."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lprl_api.derived.run_folder import Owner, changed_fields, content_of
from lprl_api.errors import UserError
from lprl_api.model.model_shape import Inspection
from lprl_api.names import ExitCode
from lprl_api.wire.progress import Termination
from lprl_fixtures.runs import VOLUME, run_config
from lprl_workload.__main__ import main
from lprl_workload.launch.drive import finish_message

Make = Callable[..., Path]


def at(document: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy with one dotted path set, or with that key taken out for `...`."""
    found = copy.deepcopy(document)
    *parts, leaf = path.split(".")
    inner = found
    for part in parts:
        inner = inner[part]
    if value is ...:
        del inner[leaf]
    else:
        inner[leaf] = value
    return found


def owner(job: Any, trained: dict[str, Any] | None, uid: str = "uid-1", **more: Any) -> dict[str, Any]:
    return Owner(namespace="default", name="small", uid=uid, trained=trained, **more).document()


CHANGED = [
    ("optimizer.learningRate", 0.002),
    ("optimizer.beta2", 0.5),
    ("algorithm.seed", 5),
    ("algorithm.kl.coefficient", 0.5),
    ("algorithm.samplesPerPrompt", 2),
    ("precision.rollout", "bf16"),
    ("precision.training", "bf16"),
    ("data.prompts.path", "other.jsonl"),
    ("data.reward.type", "dapo"),
    ("data.systemPrompt", "Think."),
    ("model.source.path", "other"),
    ("sampling.temperature", 0.5),
]


@pytest.mark.parametrize(("path", "value"), CHANGED, ids=[c[0] for c in CHANGED])
def test_another_spec_under_the_name_is_refused_before_any_cluster(job: Any, checkpoint: Make, path: str, value: Any) -> None:
    now = job.preflight()["trained"]
    checkpoint(job.run_folder, 20, owner=owner(job, at(now, path, value)))
    code, said = job.inspect()
    assert code == ExitCode.USER_ERROR
    assert "checkpoint folder all:runs/small holds step 20 of job default/small (uid uid-1), which trained something else" in said
    assert f"spec.{path} was {'' if value is None else value}" in said
    assert said.endswith("give this job another name, another checkpoint.path, or start from that checkpoint with checkpoint.loadFrom")


def test_the_same_spec_goes_on_and_says_from_where(job: Any, checkpoint: Make) -> None:
    checkpoint(job.run_folder, 20, attempt=9, owner=owner(job, job.preflight()["trained"]))
    code, said = job.inspect()
    earlier = Inspection.model_validate_json(said).earlier
    assert code == ExitCode.OK and earlier is not None and earlier.checkpoint is not None
    assert (earlier.uid, earlier.attempt, earlier.checkpoint.step) == ("uid-1", 9, 20)
    assert earlier.checkpoint.path == "all:runs/small/step-000020"


GOES_ON: list[tuple[str, Callable[[dict[str, Any]], dict[str, Any] | None]]] = [
    ("a-default-of-a-newer-version", lambda now: at(now, "optimizer.beta1", ...)),
    ("a-part-of-a-newer-version", lambda now: at(now, "algorithm.dynamicSampling", ...)),
    ("a-version-that-noted-nothing", lambda now: None),
]


@pytest.mark.parametrize("before", [c[1] for c in GOES_ON], ids=[c[0] for c in GOES_ON])
def test_what_an_earlier_version_left_is_taken_over(job: Any, checkpoint: Make, before: Callable[..., Any]) -> None:
    checkpoint(job.run_folder, 20, owner=owner(job, before(job.preflight()["trained"])))
    code, said = job.inspect()
    assert code == ExitCode.OK, said


def test_a_folder_without_an_owner_is_taken_over(job: Any, checkpoint: Make) -> None:
    checkpoint(job.run_folder, 20)
    code, said = job.inspect()
    earlier = Inspection.model_validate_json(said).earlier
    assert code == ExitCode.OK and earlier is not None and earlier.uid is None


def test_without_a_checkpoint_there_is_nothing_to_protect(job: Any) -> None:
    job.run_folder.mkdir(parents=True)
    (job.run_folder / "FENCE").write_text("9\n")
    (job.run_folder / "owner.json").write_text(json.dumps(owner(job, at(job.preflight()["trained"], "algorithm.seed", 7))))
    code, said = job.inspect()
    earlier = Inspection.model_validate_json(said).earlier
    assert code == ExitCode.OK and earlier is not None
    assert (earlier.attempt, earlier.checkpoint) == (9, None), "the fence counts all the same"


def test_a_job_of_another_namespace_may_be_alive(job: Any) -> None:
    job.run_folder.mkdir(parents=True)
    other = owner(job, job.preflight()["trained"]) | {"namespace": "blue"}
    (job.run_folder / "owner.json").write_text(json.dumps(other))
    code, said = job.inspect()
    assert code == ExitCode.USER_ERROR and "all:runs/small is that of job blue/small (uid uid-1), this is job default/small" in said


@pytest.mark.parametrize(("file", "text"), [("owner.json", "{"), ("owner.json", "[]"), ("FENCE", "x")])
def test_a_broken_note_is_named(tmp_path: Path, file: str, text: str) -> None:
    (tmp_path / file).write_text(text)
    with pytest.raises(UserError, match=file) as caught:
        content_of(tmp_path)
    assert caught.value.remedy


def test_many_differences_are_named_the_first_with_their_values(job: Any, checkpoint: Make) -> None:
    before = job.preflight()["trained"]
    for path, value in CHANGED:
        before = at(before, path, value)
    fields = changed_fields(before, job.preflight()["trained"])
    assert set(fields) == {f"spec.{path}" for path, _ in CHANGED}
    checkpoint(job.run_folder, 20, owner=owner(job, before))
    said = job.inspect()[1]
    assert said.count(" was ") == 5 and all(field in said for field in fields)


def drive(job: Any, attempt: int, uid: str, **changes: Any) -> tuple[int, Termination]:
    """Run the driver in this process."""
    run = run_config(job.root, {"job_uid": uid, "trained": job.preflight()["trained"], **changes})
    job.config.write_text(run.model_dump_json(by_alias=True))
    code = main(["train", "--config", str(job.config), "--attempt", str(attempt), "--in-process"])
    return code, Termination.model_validate_json(job.log.read_text())


def test_the_driver_notes_refuses_resumes_and_says_when_nothing_is_left(job: Any) -> None:
    """One folder, four jobs of one name: made, made again, with another spec, with more steps."""
    code, said = drive(job, 1, "uid-1", algorithm={"steps": 2})
    assert (code, said.message) == (ExitCode.OK, "finished 2 steps")
    noted = Owner.model_validate_json((job.run_folder / "owner.json").read_bytes())
    assert noted == Owner(namespace="default", name="small", uid="uid-1", trained=job.preflight()["trained"])
    code, said = drive(job, 2, "uid-2", algorithm={"steps": 2})
    assert code == ExitCode.OK and said.progress is not None and said.progress.reward is not None
    assert said.message.startswith("nothing was left to do: resumed from step 2 of an earlier job of this name (uid uid-1)")
    before = sorted(p.name for p in job.run_folder.iterdir()), (job.run_folder / "FENCE").read_text()
    code, said = drive(job, 3, "uid-3", trained=at(job.preflight()["trained"], "algorithm.seed", 8))
    assert code == ExitCode.USER_ERROR and "spec.algorithm.seed was 0, is 8" in said.message
    assert before == (sorted(p.name for p in job.run_folder.iterdir()), (job.run_folder / "FENCE").read_text()), "nobody is fenced out"
    code, said = drive(job, 3, "uid-3", algorithm={"steps": 4})
    assert (code, said.message) == (ExitCode.OK, "finished 4 steps, resumed from step 2 of an earlier job of this name (uid uid-2)")
    rows = [json.loads(line)["step"] for line in (job.run_folder / "metrics.jsonl").read_text().splitlines()]
    assert rows == [1, 2, 3, 4]
    assert (job.root / VOLUME / "runs" / "small" / "step-000004").is_dir()


def test_a_run_of_its_own_says_nothing_of_others() -> None:
    assert finish_message(4, 4, "") == finish_message(4, None, "") == "finished 4 steps"


def leaves(prompt: str, response: str, label: str | None, metadata: dict[str, Any]) -> float:
    """A reward function that ends the process as if all were done."""
    raise SystemExit(0)


def test_a_reward_function_that_leaves_is_no_success(job: Any) -> None:
    data = job.run["data"] | {"reward": {"type": "python", "function": f"{__name__}:leaves"}}
    code, said = drive(job, 1, "uid-1", data=data)
    assert code in (ExitCode.PROGRAM_ERROR, ExitCode.USER_ERROR) and said.reason != "Succeeded"
