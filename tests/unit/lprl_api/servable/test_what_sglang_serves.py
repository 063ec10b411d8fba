"""What SGLang serves, as measured on a GPU (engine 0.5.17, SmolLM2's widths) and read from its shape checks (0.5.23)."""

from typing import Any

import pytest

from lprl_api.catalog.presets import PRESETS, preset_manifest
from lprl_api.catalog.servable import folder_warnings, servable_tensors, servable_without, unservable
from lprl_api.model.formats import Fp8Block, Fp8Channel, Fp8Tensor, Int4Group, WeightFormat
from lprl_api.model.model_shape import Mla, ModelShape, Moe
from lprl_api.model.shapes import SHAPES
from lprl_api.rules.check import check
from lprl_api.rules.parse import parse_job
from lprl_api.spec.precision import Scope

SMOL = ModelShape(
    architecture="Qwen3ForCausalLM", family="qwen3", layers=30, hidden=576, heads=9, kv_heads=3, head_dim=64, ffn=1536, vocab=49152,
    tied_embeddings=True,
)  # fmt: skip
PADDED = SMOL.model_copy(update={"hidden": 768, "heads": 12, "kv_heads": 4})
LLAMA = PADDED.model_copy(update={"family": "llama", "architecture": "LlamaForCausalLM"})
QWEN_MOE = SHAPES["qwen3-30b-a3b"]
DEEPSEEK = SHAPES["deepseek-v3"]
ATTENTION = ("*.self_attn.*",)
ALL_BUT_DOWN = ("*.self_attn.*", "*.gate_proj", "*.up_proj")


def int4(group: Any, *exclude: str, scope: Scope = Scope.ALL_LINEAR) -> Int4Group:
    return Int4Group(group_size=group, scope=scope, exclude_modules=exclude)


def experts(group: Any) -> Int4Group:
    return int4(group, scope=Scope.ROUTED_EXPERTS)


def moe(ffn: int, hidden: int = 2048) -> ModelShape:
    found = QWEN_MOE.model_copy(update={"hidden": hidden})
    assert found.moe is not None
    return found.model_copy(update={"moe": found.moe.model_copy(update={"expert_ffn": ffn})})


def mla(**dims: int) -> ModelShape:
    assert DEEPSEEK.mla is not None
    return DEEPSEEK.model_copy(update={"mla": DEEPSEEK.mla.model_copy(update=dims)})


# (what, shape, format, tensor, expert, {matrix: text of why}); no matrix: served.
ROWS: list[tuple[str, ModelShape, WeightFormat, int, int, dict[str, str]]] = [
    ("block FP8, q rows 576", SMOL, Fp8Block(), 1, 1, {"qkv_proj": "q_proj has 576", "gate_up_proj": "576 input", "o_proj": "576"}),
    ("block FP8 of the MLP, inputs 576", SMOL, Fp8Block(exclude_modules=ATTENTION), 1, 1, {"gate_up_proj": "576 input"}),
    ("block FP8, ragged rows of down_proj", SMOL, Fp8Block(exclude_modules=ALL_BUT_DOWN), 1, 1, {}),
    ("block FP8, multiples of 128", PADDED, Fp8Block(), 1, 1, {}),
    ("block FP8, Llama", LLAMA, Fp8Block(), 1, 1, {"model": "renames the scales"}),
    ("channel FP8, Llama", LLAMA, Fp8Channel(), 1, 1, {}),
    ("channel FP8, any width", SMOL, Fp8Channel(), 1, 1, {}),
    ("tensor FP8, any width", SMOL, Fp8Tensor(), 1, 1, {}),
    ("channel FP8 without activations, any width", PADDED, Fp8Channel(activations="none"), 1, 1, {"model": "the packed format alone"}),
    ("tensor FP8 without activations, fused qkv 576 x 960", SMOL, Fp8Tensor(activations="none"), 1, 1,
     {"qkv_proj": "Marlin tile", "o_proj": "Marlin tile"}),
    ("tensor FP8 without activations, multiples of 128", LLAMA, Fp8Tensor(activations="none"), 1, 1, {}),
    ("block FP8 without activations, multiples of 128", PADDED, Fp8Block(activations="none"), 1, 1, {}),
    ("INT4 g64, fused qkv 576 x 960", SMOL, int4(64), 1, 1, {"qkv_proj": "576 input and 960 output", "o_proj": "576 input and 576 output"}),
    ("INT4 g32, fused qkv 576 x 960", SMOL, int4(32), 1, 1, {"qkv_proj": "Marlin tile", "o_proj": "Marlin tile"}),
    ("INT4 g64 of the MLP", SMOL, int4(64, *ATTENTION), 1, 1, {}),
    ("INT4 g128, multiples of 128", PADDED, int4(128), 1, 1, {}),
    ("INT4 g64, multiples of 128", PADDED, int4(64), 1, 1, {}),
    ("INT4 g32, multiples of 128", PADDED, int4(32), 1, 1, {}),
    ("INT4 g128 of 192 inputs a rank", PADDED, int4(128), 4, 1, {"o_proj": "192 input channels on each of 4"}),
    ("block FP8, k of one head of 64 on each rank", PADDED, Fp8Block(), 4, 1, {"qkv_proj": "q_proj has 192", "o_proj": "192 input"}),
    ("block FP8, replicated heads of 64", SHAPES["llama-3.2-1b"].model_copy(update={"family": "qwen3"}), Fp8Block(), 16, 1,
     {"qkv_proj": "k_proj has 64 output channels on each of 16 ranks"}),
    ("block FP8 of Qwen3-4B on 8 ranks", SHAPES["qwen3-4b"], Fp8Block(), 8, 1, {"gate_up_proj": "1216 output", "down_proj": "1216 input"}),
    ("block FP8, experts cut to 192", QWEN_MOE, Fp8Block(), 4, 1, {"gate_up_proj": "192 output", "down_proj": "192 input"}),
    ("block FP8, whole experts", QWEN_MOE, Fp8Block(), 4, 4, {}),
    ("INT4 of experts cut to 192", QWEN_MOE, experts(64), 4, 1, {}),
    ("INT4 g128 of experts cut to 192", QWEN_MOE, experts(128), 4, 1, {"down_proj": "no multiple of group 128"}),
    ("INT4 of experts of 96", moe(96), experts(32), 1, 1, {"gate_up_proj": "192 output", "down_proj": "96 input"}),
    ("INT4 of experts beside 576 channels", moe(768, 576), experts(64), 1, 1, {"down_proj": "768 input and 576 output"}),
    ("block FP8, MLA: 576 latent rows after 1536", DEEPSEEK, Fp8Block(), 8, 8, {}),
    ("block FP8, MLA: ragged q_a before kv_a", mla(q_lora_rank=1600), Fp8Block(), 1, 1, {"fused_qkv_a_proj_with_mqa": "q_a_proj has 1600",
     "q_b_proj": "1600 input"}),
    ("block FP8, MLA without q_a", SHAPES["moonlight-16b-a3b"], Fp8Block(), 1, 1, {}),
    ("FP8 by tensor, experts", moe(256), Fp8Tensor(), 1, 1, {"gate_up_proj": "one scale", "down_proj": "one scale"}),
    ("FP8 by tensor, experts left out", moe(256), Fp8Tensor(exclude_modules=("*.experts.*",)), 1, 1, {}),
    ("INT4 everywhere, MLA", DEEPSEEK, int4(32), 8, 8, {}),
]  # fmt: skip


@pytest.mark.parametrize(("shape", "fmt", "tensor", "expert", "wanted"), [pytest.param(*row[1:], id=row[0]) for row in ROWS])
def test_the_engine_serves_what_it_was_seen_to_serve(
    shape: ModelShape, fmt: WeightFormat, tensor: int, expert: int, wanted: dict[str, str]
) -> None:
    found = {entry.name.rpartition(".")[2]: entry.why for entry in unservable(shape, fmt, tensor, expert)}
    assert set(found) == set(wanted), found
    assert all(text in found[name] for name, text in wanted.items()), found


ODD_WIDTHS = "smollm2-135m"
"""Hidden 576: its rows are the measured ones above; FP8 channel is what serves it."""


def test_odd_widths_are_served_in_channels_only() -> None:
    assert not unservable(SHAPES[ODD_WIDTHS], Fp8Channel())
    assert unservable(SHAPES[ODD_WIDTHS], int4(64))
    assert unservable(SHAPES[ODD_WIDTHS], Fp8Block())


@pytest.mark.parametrize("name", [name for name in SHAPES if name != ODD_WIDTHS])
def test_every_known_shape_is_served_on_one_rank_in_every_format_but_llama_in_blocks(name: str) -> None:
    shape = SHAPES[name]
    formats: list[WeightFormat] = [Fp8Channel(), int4(128), int4(64), int4(32), *([] if shape.family == "llama" else [Fp8Block()])]
    assert [(fmt.kind, str(entry)) for fmt in formats for entry in unservable(shape, fmt)] == []


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_served_in_its_own_layout(name: str) -> None:
    assert check(parse_job(preset_manifest(name)).spec) == []


def test_remedies_are_tried_before_they_are_named() -> None:
    assert "*.mlp.down_proj" not in servable_without(SMOL, Fp8Block())
    ragged = PADDED.model_copy(update={"ffn": 2000})
    patterns = servable_without(ragged, Fp8Block())
    assert patterns == ("*.mlp.gate_proj", "*.mlp.up_proj", "*.mlp.down_proj")
    assert unservable(ragged, Fp8Block(exclude_modules=patterns)) == ()
    assert servable_tensors(SHAPES["qwen3-4b"], Fp8Block(), 8) == [1, 2, 4]
    assert "what fits: group size 64; or group size 32; or fp8-channel with" in folder_warnings(moe(192), experts(128))[-1]
    assert folder_warnings(LLAMA, Fp8Block())[-1] == "what fits: fp8-channel with FP8 activations, which SGLang serves in every shape"
    assert folder_warnings(PADDED, Fp8Block()) == ()
    weight_only = folder_warnings(LLAMA, Fp8Channel(activations="none"))
    assert weight_only[-1].startswith("what fits: fp8-tensor with BF16 activations; or fp8-channel with FP8 activations")
    assert "fp8-tensor" not in folder_warnings(SMOL, Fp8Channel(activations="none"))[-1]


def job(preset: str, **changes: Any) -> Any:
    document = preset_manifest(preset)
    document["spec"]["model"].pop("shape")
    for path, value in changes.items():
        *parents, leaf = path.split("__")
        node = document["spec"]
        for part in parents:
            node = node.setdefault(part, {})
        node[leaf] = value
    return parse_job(document).spec


ONE = {"topology__trainer": {}, "topology__rollout": {"gpusPerEngine": 1}, "precision__training": "bf16"}
WIDE = SMOL.model_copy(update={"heads": 8, "kv_heads": 8, "head_dim": 64, "hidden": 640, "ffn": 2000})
JOBS: list[tuple[str, Any, ModelShape, str, list[str]]] = [
    ("Llama in blocks", job("qwen3-4b-fp8", **ONE), LLAMA, "precision.rollout", ["backends.rollout torch", "takes no weight updates"]),
    ("Llama by channel", job("qwen3-4b-fp8", **ONE, precision__fp8={"strategy": "channel"}), LLAMA, "precision.fp8.strategy",
     ["precision.rollout bf16", "no public path"]),
    ("by tensor", job("qwen3-4b-fp8", **ONE, precision__fp8={"strategy": "tensor"}), SHAPES["qwen3-4b"], "precision.fp8.strategy",
     ["block: sglang serves tensor-wise", "backends.rollout torch"]),
    ("an MLP that fits no block", job("qwen3-4b-fp8", **ONE), WIDE, "precision.rollout",
     ["*.mlp.gate_proj, *.mlp.up_proj, *.mlp.down_proj in precision.excludeModules", "2000 output channels"]),
    ("too many ranks", job("qwen3-4b-fp8", **{**ONE, "topology__rollout": {"gpusPerEngine": 8}}), SHAPES["qwen3-4b"],
     "topology.rollout.gpusPerEngine", ["1 or 2 or 4", "1216 output channels on each of 8 ranks"]),
    ("cut experts", job("qwen3-30b-a3b-fp8", topology__rollout={"gpusPerEngine": 8, "expert": 2}), QWEN_MOE, "topology.rollout.expert",
     ["one of 4, 8", "192 output channels on each of 4 ranks"]),
    ("a smaller group", job("qwen3-30b-a3b-int4", topology__trainer={"sequenceParallel": False}, precision__training="bf16"), moe(192),
     "precision.int4.groupSize", ["64: mlp.experts.*.down_proj has 192 input channels"]),
    ("experts of 96", job("qwen3-30b-a3b-int4", topology__trainer={"sequenceParallel": False}, precision={"training": "bf16",
     "rollout": "int4", "int4": {"groupSize": 32}}), moe(96), "precision.rollout", ["backends.rollout torch", "Marlin tile"]),
]  # fmt: skip


@pytest.mark.parametrize(("spec", "shape", "path", "texts"), [pytest.param(*row[1:], id=row[0]) for row in JOBS])
def test_a_job_whose_engine_cannot_serve_its_format_is_refused_with_what_fits(
    spec: Any, shape: ModelShape, path: str, texts: list[str]
) -> None:
    found = check(spec, shape)
    assert [error.path for error in found] == [f"spec.{path}"], "\n".join(map(str, found))
    assert all(text in found[0].need for text in texts), found[0]
    torch = spec.model_copy(update={"backends": spec.backends.model_copy(update={"rollout": "torch"})})
    assert [e for e in check(torch, shape) if "serve" in e.need or "Marlin" in e.need] == []


def test_mla_and_moe_helpers_make_what_they_say() -> None:
    assert mla(q_lora_rank=1600).mla == Mla(q_lora_rank=1600, kv_lora_rank=512, qk_nope_head_dim=128, qk_rope_head_dim=64, v_head_dim=128)
    assert moe(96).moe == Moe(experts=128, experts_per_token=8, expert_ffn=96)
