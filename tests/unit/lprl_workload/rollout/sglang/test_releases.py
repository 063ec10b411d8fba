from typing import Any

import pytest

from lprl_api.errors import UserError
from lprl_api.model.formats import Bf16, Fp8Block, Fp8Channel, Int4Group, WeightFormat
from lprl_api.model.model_shape import ModelShape
from lprl_api.spec.precision import Scope
from lprl_fixtures.architectures import model_config
from lprl_fixtures.shape import model_shape
from lprl_workload.rollout.sglang.releases import Release

ROUTES = {"paths": {"/generate": {}, "/begin_weight_update": {}, "/end_weight_update": {}}}


def shape_of(architecture: Any) -> ModelShape:
    return model_shape(model_config(architecture, "tiny", 64, 0, 1, "bfloat16", False))


def release(version: str, api: dict[str, Any] | None = None, device: str = "cuda") -> Release:
    return Release.of({"version": version, "device": device}, ROUTES if api is None else api)


def test_sessions_are_told_by_the_routes_and_by_the_version_only_where_the_server_tells_none() -> None:
    assert release("0.5.17").sessions and not release("0.5.17").weight_versions
    assert not release("0.5.23", {"paths": {"/generate": {}}}).sessions
    assert release("0.5.23.post1", {}).sessions and not release("0.5.20", {}).sessions
    assert release("0.5.19").weight_versions


def test_a_release_outside_the_tested_range_is_refused_below_and_warned_of_above() -> None:
    with pytest.raises(UserError, match="SGLang 0"):
        release("0.5.16")
    with pytest.raises(UserError, match="nightly"):
        release("nightly")
    assert release("0.5.23").warning == "" and "newer than 0.5.23" in release("0.6.0").warning


@pytest.mark.parametrize(
    ("architecture", "fmt", "device", "problem"),
    [
        pytest.param("llama", Fp8Block(), "cpu", "as noise", id="llama-block-fp8-loses-its-scales"),
        pytest.param("llama", Bf16(), "cuda", "", id="llama-bf16"),
        pytest.param("qwen3", Fp8Block(), "cuda", "", id="block-fp8"),
        pytest.param("qwen3", Fp8Block(activations="none"), "cuda", "FP8 weights packed", id="block-fp8-weight-only"),
        pytest.param("qwen3", Fp8Channel(), "cuda", "fp8-channel weights once", id="channel-fp8-is-transposed"),
        pytest.param("qwen3", Int4Group(scope=Scope.ALL_LINEAR), "cuda", "dense INT4 weights once", id="dense-int4"),
        pytest.param("qwen3-moe", Int4Group(scope=Scope.ALL_LINEAR), "cuda", "dense INT4 weights once", id="int4-beyond-experts"),
        pytest.param("qwen3-moe", Int4Group(), "cuda", "", id="int4-of-experts"),
        pytest.param("qwen3", Int4Group(scope=Scope.ALL_LINEAR), "cpu", "", id="dense-int4-stays-as-it-is-on-cpu"),
    ],
)
def test_what_a_release_would_not_load_twice_is_refused_by_name(architecture: str, fmt: WeightFormat, device: str, problem: str) -> None:
    found = release("0.5.23", device=device)
    if not problem:
        found.check(shape_of(architecture), fmt, (9, 0))
        return
    with pytest.raises(UserError, match=problem):
        found.check(shape_of(architecture), fmt, (9, 0))


def test_on_blackwell_only_bf16_is_taken_twice() -> None:
    found = release("0.5.23")
    found.check(shape_of("qwen3"), Bf16(), (10, 0))
    for architecture, fmt in (("qwen3", Fp8Block()), ("qwen3-moe", Int4Group())):
        with pytest.raises(UserError, match="another layout on GPUs of this kind"):
            found.check(shape_of(architecture), fmt, (10, 0))


def test_gpus_without_fp8_units_pack_fp8_weights_once() -> None:
    with pytest.raises(UserError, match="packed for BF16 activations"):
        release("0.5.23").check(shape_of("qwen3"), Fp8Block(), (8, 0))
    release("0.5.23").check(shape_of("qwen3"), Fp8Block(), (8, 9))
