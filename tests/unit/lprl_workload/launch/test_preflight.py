"""What a job needs besides its model is told by the inspection, before any conversion or cluster: all at once, each with its place."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lprl_api.model.model_shape import Inspection
from lprl_api.names import ExitCode
from lprl_fixtures.runs import VOLUME
from lprl_workload.folder.config import read_shape
from lprl_workload.launch import preflight

Spoil = Callable[[Any], None]


def nothing(job: Any) -> None:
    """The inputs are fine."""


def missing(path: str) -> Spoil:
    return lambda job: (job.root / VOLUME / path).unlink()


def rewritten(path: str, text: str) -> Spoil:
    def spoil(job: Any) -> None:
        (job.root / VOLUME / path).write_text(text)

    return spoil


def a_file_for_the_folder(job: Any) -> None:
    (job.root / VOLUME / "runs").write_text("")


def no_tokenizer(job: Any) -> None:
    for path in (job.root / VOLUME / "model").glob("tokenizer*"):
        path.unlink()


def no_prompt_key(job: Any) -> None:
    path = job.root / VOLUME / "data" / "heldout.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[2] = {"question": "x"}
    path.write_text("\n".join(map(json.dumps, rows)))


ROLLOUTS = "tests.unit.lprl_workload.agent.rollouts"


def episode(kind: str, **named: Any) -> dict[str, Any]:
    return {"imports_episode": True, "episode": {"type": kind, **named}}


LOAD_FROM = {"checkpoint": {"load_from": {"volume": VOLUME, "path": "other"}}}
CASES: list[tuple[str, Spoil, dict[str, Any], list[str]]] = [
    ("trainer", nothing, {"backends": {"trainer": "megatron"}}, ["spec.backends.trainer: got megatron", "image has trainer: torch"]),
    ("rollout", nothing, {"backends": {"rollout": "sglang"}}, ["spec.backends.rollout: got sglang", "rollout: torch"]),
    ("rollout-function", nothing, episode("python", function="a.b:c"), ["episode.function: a.b:c", "'a'"]),
    ("rollout-sync", nothing, episode("python", function=f"{ROLLOUTS}:not_async"), ["is no async function", "rollouts.py line"]),
    ("tool-function", nothing, episode("tools", tools=[{"name": "t", "function": "a.b:c"}]), ["episode.tools[0].function: a.b:c"]),
    ("tool-template", nothing, episode("tools", tools=[{"name": "t", "function": f"{ROLLOUTS}:multiply"}]),
     ["episode.tools: the chat template has no word for tools"]),
    ("no-prompts", missing("data/train.jsonl"), {}, ["spec.data.prompts all:data/train.jsonl: no such file", "what the claim holds"]),
    ("no-held-out", missing("data/heldout.jsonl"), {}, ["spec.evaluation.prompts all:data/heldout.jsonl: no such file"]),
    ("prompts-not-json", rewritten("data/train.jsonl", "{\n"), {}, ["data/train.jsonl row 0: not JSON"]),
    ("prompts-empty", rewritten("data/train.jsonl", ""), {}, ["data/train.jsonl: no prompt left of 0 rows"]),
    ("prompts-kind", nothing, {"data": {"prompts": {"path": "model/config.json"}}}, ["needs .jsonl or .parquet"]),
    ("held-out-row", no_prompt_key, {}, ["data/heldout.jsonl row 2: no key 'prompt'", "keys found: question"]),
    ("no-label", nothing, {"data": {"label_key": "solution", "reward": {"type": "exact"}}}, ["row 0", "'solution'"]),
    ("reward-module", nothing, {"data": {"reward": {"function": "no_such:f"}}}, ["data.reward.function: no_such:f", "PYTHONPATH"]),
    ("reward-name", nothing, {"data": {"reward": {"function": "lprl_fixtures.runs:nope"}}}, ["data.reward.function", "nope"]),
    ("no-tokenizer", no_tokenizer, {}, ["model: no readable tokenizer", "tokenizer.json"]),
    ("broken-tokenizer", rewritten("model/tokenizer.json", "{}"), {}, ["model: no readable tokenizer (", "tokenizer.json"]),
    ("nothing-to-load", nothing, LOAD_FROM, ["spec.checkpoint.loadFrom: no intact checkpoint in", "other (no step folder)"]),
    ("folder-is-a-file", a_file_for_the_folder, {}, ["spec.checkpoint all:runs/small", "a file stands where a folder is needed"]),
    ("model", rewritten("model/config.json", "{"), {}, ["model/config.json: not valid JSON"]),
]  # fmt: skip


@pytest.mark.parametrize(("spoil", "changes", "words"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_what_is_missing_is_told_by_the_inspection(job: Any, spoil: Spoil, changes: dict[str, Any], words: list[str]) -> None:
    changes = {k.replace("label_key", "labelKey"): v for k, v in changes.items()}
    spoil(job)
    code, said = job.inspect(_camel(changes))
    assert code == ExitCode.USER_ERROR, said
    assert all(word in said for word in words), said
    assert "\n" not in said and not job.run_folder.exists(), "the inspection writes nothing"


def _camel(document: Any) -> Any:
    """Keys as documents have them."""
    if not isinstance(document, dict):
        return document
    names = {"load_from": "loadFrom", "label_key": "labelKey"}
    return {names.get(key, key): _camel(value) for key, value in document.items()}


def test_all_that_is_wrong_is_told_at_once(job: Any) -> None:
    missing("data/train.jsonl")(job)
    rewritten("data/heldout.jsonl", "[]\n")(job)
    shutil.rmtree(job.root / VOLUME / "model")
    code, said = job.inspect({"backends": {"trainer": "megatron"}, "data": {"reward": {"function": "no_such:f"}}})
    assert code == ExitCode.USER_ERROR
    for word in ("4 problems: (1) spec.backends.trainer", "no_such:f", "data/train.jsonl: no such file", "all:model: no such folder"):
        assert word in said
    assert said.endswith("correct all of them; nothing was converted and no cluster was made")


def test_a_remote_source_is_not_downloaded_for_a_job_that_cannot_run(job: Any) -> None:
    cache = {"volume": VOLUME, "path": "cache"}
    code, said = job.inspect({"backends": {"rollout": "sglang"}}, {"huggingFace": {"repo": "a/b"}, "cache": cache})
    assert code == ExitCode.USER_ERROR and said.startswith("spec.backends.rollout: got sglang")
    assert not (job.root / VOLUME / "cache").exists()


def test_what_another_image_holds_is_not_judged_here(job: Any) -> None:
    code, said = job.inspect({"backends": None, "importsReward": False, "data": {"reward": {"function": "no_such:f"}}})
    assert code == ExitCode.OK, said
    assert Inspection.model_validate_json(said).earlier is None


def test_what_other_pods_import_is_not_judged_here(job: Any) -> None:
    code, said = job.inspect({"imports_episode": False, "episode": {"type": "python", "function": "a.b:c"}})
    assert code == ExitCode.OK, said


def test_a_file_of_many_rows_costs_no_more_than_its_first_ones(job: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row 5 is wrong; the driver reads it, an inspection that may read four rows does not."""
    path = job.root / VOLUME / "data" / "train.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:5], "{", *lines[6:]]))
    assert job.inspect()[0] == ExitCode.USER_ERROR
    monkeypatch.setattr(preflight, "WHOLE_BYTES", 10)
    monkeypatch.setattr(preflight, "ROWS", 4)
    assert job.inspect()[0] == ExitCode.OK
    code, said = job.inspect({"data": {"prompts": {"firstRow": 3}}})
    assert code == ExitCode.USER_ERROR and "row 5" in said


def test_a_checkpoint_to_load_from_is_looked_at(job: Any, checkpoint: Callable[..., Path]) -> None:
    folder = checkpoint(job.root / VOLUME / "other", 4)
    assert job.inspect(_camel(LOAD_FROM))[0] == ExitCode.OK
    (folder / "state.json").write_text("{}   ")
    code, said = job.inspect(_camel(LOAD_FROM))
    assert code == ExitCode.USER_ERROR and "step-000004: state.json: not 2 bytes" in said


def test_a_checkpoint_of_another_model_is_refused(job: Any, checkpoint: Callable[..., Path]) -> None:
    folder = checkpoint(job.root / VOLUME / "other", 4)
    (folder / "model").mkdir()
    config = json.loads((job.root / VOLUME / "model" / "config.json").read_text())
    (folder / "model" / "config.json").write_text(json.dumps(config | {"intermediate_size": 2 * config["intermediate_size"]}))
    code, said = job.inspect(_camel(LOAD_FROM))
    assert code == ExitCode.USER_ERROR
    assert f"spec.checkpoint.loadFrom all:other: its model has ffn {2 * config['intermediate_size']}, not" in said


def test_a_checkpoint_without_a_model_folder_says_its_dimensions_itself(job: Any, checkpoint: Callable[..., Path]) -> None:
    shape = read_shape(job.root / VOLUME / "model")
    checkpoint(job.root / VOLUME / "other", 4, shape=shape.model_copy(update={"ffn": 2 * shape.ffn}))
    code, said = job.inspect(_camel(LOAD_FROM))
    assert code == ExitCode.USER_ERROR and f"its model has ffn {2 * shape.ffn}, not {shape.ffn}" in said


def test_a_folder_nobody_may_write_is_told(job: Any) -> None:
    """As root may write everywhere, the place is one that takes no files at all."""
    (job.root / VOLUME / "runs").symlink_to("/proc/self")
    code, said = job.inspect()
    assert code == ExitCode.USER_ERROR and "spec.checkpoint all:runs/small" in said
