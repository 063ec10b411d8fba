"""Parameter counts and checkpoint sizes against published figures."""

import pytest

from lprl_api.model.formats import Bf16, Fp8Block, Int4Group
from lprl_api.model.shapes import SHAPES
from lprl_api.model.weights import active_parameters, all_weights, format_bytes, parameters, selects


@pytest.mark.parametrize(
    ("name", "total", "active"),
    [
        # Anchors: totals and active counts of the five models of slime's low-precision scripts, derived from their own flags,
        # and DeepSeek-V3's published 671 B. The other rows pin this function's result, which rounds to the model card's figure.
        ("qwen3-0.6b", 0.596, None),
        ("qwen3-1.7b", 1.721, None),
        ("qwen3-4b", 4.022, 4.022),
        ("qwen3-8b", 8.191, None),
        ("qwen3-14b", 14.768, None),
        ("qwen3-32b", 32.762, None),
        ("qwen3-30b-a3b", 30.532, 3.353),
        ("qwen3-235b-a22b", 235.094, 22.191),
        ("qwen2.5-0.5b", 0.494, None),
        ("qwen2.5-7b", 7.616, None),
        ("llama-3.1-8b", 8.030, None),
        ("llama-3.1-70b", 70.554, None),
        ("llama-3.2-1b", 1.236, None),
        ("smollm2-135m", 0.1345, None),
        ("moonlight-16b-a3b", 15.960, 2.915),
        ("kimi-k2-thinking", 1026.408, 32.862),
        ("deepseek-v3", 671.026, 37.552),
        ("qwen3.5-9b", 8.954, None),
        ("qwen3.5-35b-a3b", 34.661, 3.455),
        ("glm-4.7-flash", 29.943, 3.897),
        ("glm-4.6", 352.798, 33.632),
        ("kimi-k2.5", 1026.408, 32.862),
    ],
)
def test_parameters(name: str, total: float, active: float | None) -> None:
    assert parameters(SHAPES[name]) / 1e9 == pytest.approx(total, abs=6e-4)
    if active is not None:
        assert active_parameters(SHAPES[name]) / 1e9 == pytest.approx(active, abs=6e-4)


def test_every_shape_has_a_count() -> None:
    assert len(SHAPES) == 22
    assert all(parameters(shape) >= active_parameters(shape) for shape in SHAPES.values())


@pytest.mark.parametrize(
    ("name", "bf16", "fp8", "int4_128", "int4_32"),
    [
        ("qwen3-30b-a3b", 61.1, 31.2, 18.0, 19.4),
        ("qwen3-235b-a22b", 470.2, 236.4, 133.1, 143.7),
        ("moonlight-16b-a3b", 31.9, 16.6, 10.6, 11.2),
        ("kimi-k2-thinking", 2052.8, 1029.2, 546.6, 594.2),
        ("qwen3.5-35b-a3b", 70.2, 36.6, 22.4, 23.9),
        ("glm-4.7-flash", 59.9, 30.6, 18.6, 19.9),
        ("glm-4.6", 705.6, 354.5, 206.9, 222.6),
        ("kimi-k2.5", 2053.8, 1030.1, 547.6, 595.1),
    ],
)
def test_checkpoint_gigabytes(name: str, bf16: float, fp8: float, int4_128: float, int4_32: float) -> None:
    formats = (Bf16(), Fp8Block(), Int4Group(), Int4Group(group_size=32))
    assert [round(format_bytes(SHAPES[name], f) / 1e9, 1) for f in formats] == [bf16, fp8, int4_128, int4_32]


def test_routed_share() -> None:
    share = {
        name: sum(w.parameters for _, w in all_weights(SHAPES[name]) if w.kind == "expert") / parameters(SHAPES[name])
        for name in ("qwen3-30b-a3b", "qwen3-235b-a22b", "moonlight-16b-a3b", "kimi-k2-thinking")
    }
    assert {k: round(v, 3) for k, v in share.items()} == {
        "qwen3-30b-a3b": 0.950,
        "qwen3-235b-a22b": 0.966,
        "moonlight-16b-a3b": 0.902,
        "kimi-k2-thinking": 0.989,
    }


def test_selection_leaves_router_head_norms_and_exclusions() -> None:
    shape = SHAPES["qwen3-30b-a3b"]
    fmt = Fp8Block(exclude_modules=("model.layers.0.*",))
    taken = {module for module, weight in all_weights(shape) if selects(fmt, module, weight)}
    assert "model.layers.1.self_attn.q_proj" in taken and "model.layers.1.mlp.experts.*.down_proj" in taken
    assert not any(part in module for module in taken for part in ("mlp.gate", "norm", "lm_head", "embed", "layers.0."))
    experts = {module for module, weight in all_weights(shape) if selects(Int4Group(), module, weight)}
    assert len(experts) == 48 * 3 and all(".experts." in module for module in experts)
