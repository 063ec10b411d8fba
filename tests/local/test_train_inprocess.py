"""The driver as one process, with the real trainer and engine: suspended, fenced, fallen back, refused (killed: test_train_kill.py)."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.local.conftest import PACED, RESPONSES

from lprl_api.names import ExitCode
from lprl_api.spec.topology import Stability
from lprl_api.wire.progress import Control
from lprl_fixtures.runs import merged

SHORT = {"algorithm": {"steps": 12}, "evaluation": {"every_steps": 4}, "progress": {"interval_seconds": 0.2}}
HELD = merged(SHORT, PACED)
"""The same run, which a test may hold at a step."""


@pytest.fixture(scope="module")
def whole(driver: Any, train_root: Path) -> Any:
    return driver(None, train_root, "whole", changes=SHORT).wait()


def test_a_run_leaves_everything(whole: Any) -> None:
    names = {p.name for p in whole.folder.iterdir()}
    kept = {"step-000008", "step-000010", "step-000012", "export"}
    assert names == kept | {"metrics.jsonl", "evaluations.jsonl", "summary.json", "FENCE", "owner.json"}
    rows = whole.series()
    assert [row["step"] for row in rows] == list(range(1, 13))
    assert len({row["grad_norm"] for row in rows}) == 12 and all(row["grad_norm"] > 0 for row in rows)
    assert [json.loads(line)["step"] for line in (whole.folder / "evaluations.jsonl").read_text().splitlines()] == [0, 4, 8, 12]
    last = whole.folder / "step-000012" / "model"
    for path in (whole.folder / "export" / "bf16").glob("*.safetensors"):
        assert path.read_bytes() == (last / path.name).read_bytes()
    summary = json.loads((whole.folder / "summary.json").read_text())
    assert (summary["steps"], summary["exports"], summary["checkpoint"]) == (12, ["bf16"], "all:runs/whole/step-000012")
    term = json.loads(whole.term.read_text())
    assert term["reason"] == "Succeeded" and term["progress"]["phase"] == "finished"


def test_control_suspends_and_the_next_attempt_finishes(driver: Any, train_root: Path, whole: Any) -> None:
    (train_root / "suspended.pace").write_text(str(RESPONSES * 6))
    run = driver(None, train_root, "suspended", 1, HELD)
    run.until(lambda p: p["step"] >= 1)
    control = Control(suspend=True, steps=12, stability=Stability())
    (run.progress_file.parent / "control.json").write_text(control.model_dump_json(by_alias=True))
    told = json.loads(run.progress_file.read_text())["sequence"]
    run.until(lambda p: p["sequence"] >= told + 2, or_ended=True)  # with each report it reads what it is told
    run.let_go()
    run.wait(ExitCode.SUSPENDED)
    assert json.loads(run.term.read_text())["reason"] == "Suspended"
    step = json.loads(run.progress_file.read_text())["step"]
    assert 1 <= step < 12 and (run.folder / f"step-{step:06d}").is_dir()
    assert driver(None, train_root, "suspended", 2, SHORT).wait().outcome() == whole.outcome()


def test_an_older_attempt_is_fenced(driver: Any, train_root: Path, whole: Any) -> None:
    before = whole.outcome()
    driver(None, train_root, "whole", 5, SHORT).wait()
    late = driver(None, train_root, "whole", 4, SHORT).wait(ExitCode.FENCED)
    assert "attempt 5 owns this folder" in json.loads(late.term.read_text())["message"]
    assert "Traceback" not in late.log.read_text()
    assert whole.outcome() == before


def test_fallback_really_serves_bf16_and_resumes_so(driver: Any, train_root: Path) -> None:
    changes = merged(
        HELD,
        {
            "precision": {"rollout": "int4", "int4": {"group_size": 32}},
            "stability": {"absolute_limit": 1e-6, "relative_limit": None, "patience": 2, "action": "fallback-bf16"},
        },
    )
    (train_root / "fallback.pace").write_text(str(RESPONSES * 10))
    run = driver(None, train_root, "fallback", changes=changes)
    run.until(lambda p: p["step"] >= 6)
    run.process.kill()
    run.process.wait()
    run.let_go()
    run = driver(None, train_root, "fallback", 2, changes).wait()
    rows = run.series()
    assert all(row["quantization_error"] > 0.05 and row["k3"] > 1e-6 for row in rows[:2])
    assert all(row["quantization_error"] == 0 and row["k3"] < 1e-9 for row in rows[2:])
    assert json.loads(run.progress_file.read_text())["effectiveRollout"] == "bf16"
    assert json.loads((run.folder / "summary.json").read_text())["effective_rollout"] == "bf16"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"data": {"prompts": {"path": "data/nothing.jsonl"}}}, "nothing.jsonl", id="no-prompts"),
        pytest.param({"data": {"reward": {"function": "lprl_fixtures.runs:nothing"}}}, "data.reward.function", id="no-reward"),
        pytest.param({"backends": {"trainer": "megatron"}}, "spec.backends.trainer: got megatron", id="no-backend"),
        pytest.param({"checkpoint": {"load_from": {"volume": "all", "path": "data"}}}, "spec.checkpoint.loadFrom", id="no-checkpoint"),
    ],
)
def test_wrong_input_is_one_line_and_exit_3(
    driver: Any, train_root: Path, changes: dict[str, Any], message: str, request: pytest.FixtureRequest
) -> None:
    name = f"wrong-{request.node.callspec.id}"
    run = driver(None, train_root, name, changes=merged(SHORT, changes)).wait(ExitCode.USER_ERROR)
    found = json.loads(run.term.read_text())
    assert found["reason"] == "UserError" and message in found["message"]
    assert "Traceback" not in run.log.read_text()


def test_load_from_goes_on_where_another_run_stopped(driver: Any, train_root: Path, whole: Any) -> None:
    changes = merged(SHORT, {"algorithm": {"steps": 14}, "checkpoint": {"load_from": {"volume": "all", "path": "runs/whole"}}})
    run = driver(None, train_root, "continued", changes=changes).wait()
    assert [row["step"] for row in run.series()] == [13, 14]
    longer = driver(None, train_root, "longer", changes=merged(SHORT, {"algorithm": {"steps": 14}})).wait()
    assert run.series() == longer.series()[12:]
