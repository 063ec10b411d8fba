"""Backends that this version's images do not hold: told by every command and the webhook, refused by the operator before any work."""

import copy
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from lprl_api.catalog.images import WORKLOAD
from lprl_api.catalog.presets import PRESETS, preset_manifest
from lprl_cli import exits
from lprl_cli.main import main
from lprl_operator.admission import MAX_WARNING, review
from lprl_operator.controller import consider
from lprl_operator.decide.observed import Observed
from lprl_operator.resources.settings import RenderSettings

CANNOT = "this version's images cannot run"
MEGATRON = f"spec.backends.trainer: got megatron; need torch: {CANNOT} megatron; or podTemplate.image with an image that holds it"
OWN_IMAGE = {"podTemplate": {"image": "registry.example/workload:mine"}}


def document(name: str = "qwen3-4b-fp8", **spec: Any) -> dict[str, Any]:
    found = copy.deepcopy(preset_manifest(name))
    found["spec"].update(spec)
    return found


def considered(job: dict[str, Any], settings: RenderSettings | None = None) -> Any:
    return consider(job, Observed(), datetime(2026, 1, 1, tzinfo=UTC), settings or RenderSettings())


def refused(job: dict[str, Any], settings: RenderSettings | None = None) -> str:
    """Return why the operator fails a job before it makes anything; empty when it starts to inspect."""
    found = considered(job, settings)
    failed = next((c for c in found.status["conditions"] if c["type"] == "Failed" and c["status"] == "True"), None)
    assert (failed is None) == bool(found.actions)
    return failed["message"] if failed else ""


@pytest.mark.parametrize("name", PRESETS)
def test_the_operator_refuses_before_it_inspects(name: str) -> None:
    message = refused(document(name))
    assert MEGATRON in message and f"spec.backends.rollout: got sglang; need torch: {CANNOT} sglang" in message


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        (OWN_IMAGE, []),
        ({"podTemplate": {"workers": {"image": "registry.example/workload:mine"}}}, []),
        ({"podTemplate": {"head": {"image": "registry.example/head:mine"}}}, ["trainer", "rollout"]),
        ({"podTemplate": {"image": f"{WORKLOAD}:0.1.0-gpu"}}, ["trainer", "rollout"]),
        ({"podTemplate": {"image": f"{WORKLOAD}@sha256:0"}}, ["trainer", "rollout"]),
        ({"podTemplate": {"image": "registry.example/lprl/workload:0.1.0"}}, []),
        ({"podTemplate": {"image": "registry.example/mine:1", "workers": {"image": f"{WORKLOAD}:0.1.0"}}}, ["trainer", "rollout"]),
    ],
)
def test_an_image_of_ones_own_is_left_to_the_inspect_pod(spec: dict[str, Any], named: list[str]) -> None:
    message = refused(document(**spec))
    assert [side for side in ("trainer", "rollout") if f"spec.backends.{side}" in message] == named


def test_the_rollout_pods_of_a_split_have_an_image_of_their_own() -> None:
    job = document(podTemplate={"rollout": {"image": "registry.example/sglang:mine"}})
    job["spec"]["topology"].update(placement="split", nodes=2)
    message = refused(job)
    assert MEGATRON in message and "spec.backends.rollout" not in message


def test_an_operator_with_another_workload_image_lets_the_inspect_pod_decide() -> None:
    assert refused(document(), RenderSettings(image="registry.example/lprl/workload:0.1.0")) == ""


def test_the_webhook_warns_and_lets_it_pass() -> None:
    response = review({"uid": "1", "operation": "CREATE", "object": document()})
    assert response["allowed"] and response["warnings"][0] == MEGATRON[:MAX_WARNING] and len(response["warnings"]) == 2
    assert all(len(text) <= 256 for text in response["warnings"])
    assert "warnings" not in review({"uid": "1", "operation": "CREATE", "object": document(**OWN_IMAGE)})
    unchanged = {"uid": "1", "operation": "UPDATE", "object": document(), "oldObject": document()}
    assert "warnings" not in review(unchanged)


def test_validate_warns_and_ends_with_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(json.dumps(document()))
    assert main(["validate", str(file)]) == exits.OK
    out = capsys.readouterr().out
    assert "qwen3-4b-fp8 is valid" in out and f"warning: spec.backends.trainer\n    got  megatron\n    fits torch: {CANNOT}" in out
    assert main(["validate", str(file), "--output", "json"]) == exits.OK
    [row] = json.loads(capsys.readouterr().out)
    assert row["valid"] and [w["path"] for w in row["warnings"]] == ["spec.backends.trainer", "spec.backends.rollout"]


def test_plan_and_init_of_a_preset_stay_useful_and_say_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "kimi-k2-thinking-int4", "--output", "json"]) == exits.OK
    out, err = capsys.readouterr()
    assert json.loads(out)["ranks"]["nodes"] == 32
    assert err.count("warning: kimi-k2-thinking-int4:1: spec.backends.") == 2 and CANNOT in err
    assert main(["init", "qwen3-4b-fp8"]) == exits.OK
    assert f"# spec.backends.trainer: got megatron; fits torch: {CANNOT} megatron" in capsys.readouterr().out


def test_what_is_written_and_does_nothing_is_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = document(**OWN_IMAGE)
    spec = job["spec"]
    spec["model"]["reference"] = {"volume": "models", "path": "Other"}
    spec["algorithm"].update(steps=4, kl={"measure": False})
    spec["optimizer"]["minLearningRate"] = 1e-8
    spec["stability"] = {"action": "hold"}
    spec["checkpoint"]["exportFormats"] = ["bf16", "fp8"]
    spec["model"]["shape"] = "llama-3.1-8b"
    spec["precision"] = {}
    file = tmp_path / "job.yaml"
    file.write_text(json.dumps(job))
    assert main(["validate", str(file), "--output", "json"]) == exits.OK
    [row] = json.loads(capsys.readouterr().out)
    assert {w["path"].removeprefix("spec."): w["need"] for w in row["warnings"]} == {
        "model.reference": "nothing, or algorithm.kl.coefficient above 0, or algorithm.kl.measure: without them no reference is read",
        "optimizer.minLearningRate": "nothing with schedule constant, which never decays; or schedule linear or cosine",
        "stability.baselineSteps": "a smaller baselineSteps or patience: stability.action hold cannot act before step 7 of 4",
        "checkpoint.exportFormats[1]": "SGLang cannot serve fp8-block: model: SGLang's LlamaForCausalLM renames the scales of block FP8 "
        "while it loads and would serve garbage; what fits: fp8-channel with FP8 activations, which SGLang serves in every shape",
    }
