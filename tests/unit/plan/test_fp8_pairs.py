"""FP8 pairs in a plan: fp8-qat keeps one rounded copy of what it selects, weight-only engines are named and remarked on."""

from typing import Any

import pytest

from lprl_api.catalog.presets import preset_manifest
from lprl_api.rules.parse import parse_job
from lprl_api.spec.precision import Precision
from lprl_operator.plan.explain import explain
from lprl_operator.plan.plan import make_plan
from lprl_operator.plan.types import JobPlan


def plan(training: str, activations: str = "dynamic", **precision: Any) -> JobPlan:
    document = preset_manifest("qwen3-4b-fp8")
    if activations == "none":  # SGLang would take such weights once
        document["spec"]["backends"]["rollout"] = "torch"
        document["spec"]["topology"]["rollout"] |= {"gpusPerEngine": 1, "maxConcurrency": 8}
    document["spec"]["precision"] = {"training": training, "rollout": "fp8", "fp8": {"activations": activations}, **precision}
    return make_plan(parse_job(document).spec)


def low_precision(found: JobPlan) -> int:
    return sum(item.bytes for item in found.gpus[0].phases[0].items if item.cause == "low-precision weights")


def test_fp8_qat_keeps_a_rounded_copy_of_the_weights_it_selects() -> None:
    every, some = plan("fp8-qat"), plan("fp8-qat", excludeModules=["*.mlp.down_proj"])
    assert low_precision(every) == low_precision(plan("fp8")) > 0
    left_out = 36 * 2560 * 9728 // 2  # layers x hidden x ffn over two tensor ranks
    assert low_precision(every) - low_precision(some) == 2 * left_out


@pytest.mark.parametrize(
    ("training", "activations", "words"),
    [
        ("fp8", "dynamic", "trained as fp8-block, FP8 activations; served as fp8-block, FP8 activations"),
        ("fp8-qat", "dynamic", "trained as fp8-block, BF16 activations; served as fp8-block, FP8 activations"),
        ("fp8-qat", "none", "trained as fp8-block, BF16 activations; served as fp8-block, BF16 activations"),
    ],
)
def test_a_plan_says_what_both_sides_do_with_activations(training: str, activations: str, words: str) -> None:
    assert words in explain(plan(training, activations))


def test_weight_only_serving_is_said_to_save_memory_not_time() -> None:
    told = "FP8 without activation quantisation computes in BF16"
    assert [told in " ".join(explain(plan("fp8-qat", chosen)).split()) for chosen in ("none", "dynamic")] == [True, False]


@pytest.mark.parametrize(
    ("precision", "label"),
    [
        ({"training": "fp8-qat", "rollout": "fp8", "fp8": {"activations": "none"}}, "fp8-qat/fp8 weight-only"),
        ({"training": "fp8-qat", "rollout": "fp8"}, "fp8-qat/fp8"),
        ({"training": "fp8", "rollout": "bf16", "fp8": {"activations": "none"}}, "fp8/bf16"),
    ],
)
def test_the_precision_column_tells_weight_only_serving_apart(precision: dict[str, Any], label: str) -> None:
    assert Precision.model_validate(precision).label == label
