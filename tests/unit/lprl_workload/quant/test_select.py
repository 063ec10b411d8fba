import pytest

from lprl_api.errors import UserError
from lprl_api.model.formats import Bf16, Fp8Block, Int4Group
from lprl_api.model.model_shape import ModelShape, Moe
from lprl_api.spec.precision import Scope
from lprl_workload.quant.select import Selection, expert_names, kind_of, text_prefix

MOE = ModelShape(
    architecture="DeepseekV3ForCausalLM",
    family="deepseek-v3",
    layers=2,
    hidden=256,
    heads=4,
    kv_heads=4,
    head_dim=64,
    ffn=512,
    vocab=100,
    tied_embeddings=False,
    moe=Moe(experts=2, experts_per_token=1, expert_ffn=128),
)
DENSE = MOE.model_copy(update={"moe": None, "family": "qwen3", "architecture": "Qwen3ForCausalLM"})
LAYER = "model.layers.1"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (f"{LAYER}.self_attn.q_proj.weight", "attention"),
        (f"{LAYER}.self_attn.kv_a_proj_with_mqa.weight", "attention"),
        (f"{LAYER}.self_attn.kv_b_proj.weight", "attention"),
        (f"{LAYER}.mlp.gate_proj.weight", "mlp"),
        (f"{LAYER}.mlp.experts.31.down_proj.weight", "routed"),
        (f"{LAYER}.mlp.experts.gate_up_proj", "routed"),
        (f"{LAYER}.mlp.experts.down_proj", "routed"),
        (f"{LAYER}.mlp.shared_experts.up_proj.weight", "shared"),
        (f"{LAYER}.mlp.shared_expert.up_proj.weight", "shared"),
        ("language_model.model.layers.3.self_attn.o_proj.weight", "attention"),
        ("model.embed_tokens.weight", None),
        ("lm_head.weight", None),
        ("model.norm.weight", None),
        (f"{LAYER}.input_layernorm.weight", None),
        (f"{LAYER}.self_attn.q_norm.weight", None),
        (f"{LAYER}.self_attn.q_proj.bias", None),
        (f"{LAYER}.self_attn.rotary_emb.inv_freq", None),
        (f"{LAYER}.mlp.gate.weight", None),
        (f"{LAYER}.mlp.gate.e_score_correction_bias", None),
        (f"{LAYER}.mlp.shared_expert_gate.weight", None),
        (f"{LAYER}.eh_proj.weight", None),
        (f"{LAYER}.shared_head.head.weight", None),
        (f"{LAYER}.linear_attn.conv1d.weight", None),
        ("visual.blocks.0.mlp.gate_proj.weight", None),
        ("model.visual.layers.0.mlp.gate_proj.weight", None),
        ("vision_tower.encoder.layers.0.self_attn.q_proj.weight", None),
        ("model.vision_model.layers.0.self_attn.q_proj.weight", None),
        ("mm_projector.layers.0.mlp.up_proj.weight", None),
    ],
)
def test_kind(name: str, kind: str | None) -> None:
    prefix = "language_model.model." if name.startswith("language_model.") else "model."
    assert kind_of(name, prefix) == kind


TOWERS = ["image_tower", "video_tower", "vision_tower", "visual", "vision_model", "audio_tower", "speech_encoder", "sam", "qformer"]
TOWERS += ["mm_projector", "multi_modal_projector", "connector", "perceiver", "aligner", "vit", "dac", "model.vision_tower", "tts.model"]


@pytest.mark.parametrize("tower", TOWERS)
@pytest.mark.parametrize("prefix", ["model.", "language_model.model.", "model.language_model.", "model.text_model.", "text."])
def test_a_tower_of_any_name_is_left_alone_because_it_lies_beside_the_text_model(tower: str, prefix: str) -> None:
    ends = [f"self_attn.{p}_proj" for p in "qkvo"] + [f"mlp.{p}_proj" for p in ("gate", "up", "down")]
    text = [f"{prefix}layers.{layer}.{end}.weight" for layer in (0, 1) for end in ends]
    # As deep as the text model, and with a token embedding of its own where it is a decoder.
    inner = [f"{tower}.encoder.layers.0.{end}.weight" for end in ends] + [f"{tower}.layers.0.{end}.weight" for end in ends]
    names = [f"{prefix}embed_tokens.weight", f"{tower}.embed_tokens.weight", *text, *inner[:12], "lm_head.weight"]
    selection = Selection.of(Fp8Block(), DENSE, names)
    assert [n for n in names if selection.takes(n)] == text
    assert selection.divide(names)[0] == tuple(sorted(n.removesuffix(".weight") for n in text))


def test_the_embedding_of_a_further_token_s_layer_is_not_the_text_model_s() -> None:
    names = [f"{LAYER}.embed_tokens.weight", "model.embed_tokens.weight", f"{LAYER}.self_attn.q_proj.weight"]
    assert text_prefix(names) == "model."


@pytest.mark.parametrize(
    ("scope", "name", "want"),
    [
        (Scope.ROUTED_EXPERTS, f"{LAYER}.mlp.experts.0.up_proj.weight", True),
        (Scope.ROUTED_EXPERTS, f"{LAYER}.mlp.shared_experts.up_proj.weight", False),
        (Scope.ROUTED_EXPERTS, f"{LAYER}.mlp.up_proj.weight", False),
        (Scope.ROUTED_EXPERTS, f"{LAYER}.self_attn.q_proj.weight", False),
        (Scope.ALL_LINEAR, f"{LAYER}.mlp.shared_experts.up_proj.weight", True),
        (Scope.ALL_LINEAR, f"{LAYER}.self_attn.q_proj.weight", True),
        (Scope.ALL_LINEAR, f"{LAYER}.self_attn.kv_b_proj.weight", False),
    ],
)
def test_int4_scope(scope: Scope, name: str, want: bool) -> None:
    assert Selection(Int4Group(scope=scope), MOE).selects(name, (128, 256)) is want


def test_fp8_takes_kv_b_proj_and_every_linear() -> None:
    assert Selection(Fp8Block(), MOE).selects(f"{LAYER}.self_attn.kv_b_proj.weight", (100, 60))


def test_bf16_selects_nothing() -> None:
    assert not Selection(Bf16(), MOE).selects(f"{LAYER}.mlp.up_proj.weight", (128, 256))


def test_vectors_are_never_selected() -> None:
    assert not Selection(Fp8Block(), MOE).selects(f"{LAYER}.mlp.up_proj.weight", (128,))


def test_fused_counts_as_its_experts() -> None:
    name = f"{LAYER}.mlp.experts.gate_up_proj"
    assert Selection(Int4Group(), MOE).selects(name, (2, 256, 256))
    assert expert_names(name, 2) == tuple(f"{LAYER}.mlp.experts.{e}.{p}_proj.weight" for e in (0, 1) for p in ("gate", "up"))
    excluded = Int4Group(exclude_modules=("*.experts.*",))
    assert not Selection(excluded, MOE).selects(name, (2, 256, 256))


def test_groups_must_divide_the_input_channels() -> None:
    selection = Selection(Int4Group(scope=Scope.ALL_LINEAR), DENSE)
    with pytest.raises(UserError, match=r"down_proj\.weight: 192 input channels are no multiple of INT4 group size 128") as error:
        selection.selects(f"{LAYER}.mlp.down_proj.weight", (256, 192))
    assert error.value.remedy == "set precision.int4.groupSize (lprl convert: --group-size) to 64"
    with pytest.raises(UserError) as error:
        selection.selects(f"{LAYER}.mlp.down_proj.weight", (256, 100))
    assert error.value.remedy == f"add {LAYER}.mlp.down_proj to precision.excludeModules (lprl convert: --exclude)"


def test_routed_experts_of_a_dense_model_is_an_error() -> None:
    with pytest.raises(UserError, match="selects no tensor of Qwen3ForCausalLM"):
        Selection(Int4Group(), DENSE)


NAMES = [
    "model.embed_tokens.weight",
    f"{LAYER}.input_layernorm.weight",
    f"{LAYER}.self_attn.q_proj.weight",
    f"{LAYER}.self_attn.k_proj.weight",
    f"{LAYER}.self_attn.v_proj.weight",
    f"{LAYER}.mlp.gate.weight",
    f"{LAYER}.mlp.experts.gate_up_proj",
    f"{LAYER}.mlp.experts.down_proj",
    "lm_head.weight",
]


def test_ignored_modules_are_the_linear_modules_left() -> None:
    attention = tuple(f"{LAYER}.self_attn.{p}_proj" for p in "kqv")
    assert Selection(Int4Group(), MOE).ignored_modules(NAMES) == ("lm_head", f"{LAYER}.mlp.gate", *attention)
    assert Selection(Fp8Block(), MOE).ignored_modules(NAMES) == ("lm_head", f"{LAYER}.mlp.gate")


@pytest.mark.parametrize(
    ("patterns", "match"),
    [
        pytest.param(("*",), "selects no tensor", id="everything"),
        pytest.param(("*.q_proj",), "are one kernel in the engine", id="part-of-qkv"),
        pytest.param(("*.experts.*.gate_proj",), "are one kernel in the engine", id="gate-without-up"),
        pytest.param(("*.experts.1.*",), "excludes some experts", id="one-expert"),
        pytest.param(("*.experts.*.down_proj",), "excludes some experts", id="down-projections-only"),
    ],
)
def test_exclusions_an_engine_cannot_serve(patterns: tuple[str, ...], match: str) -> None:
    with pytest.raises(UserError, match=match):
        Selection(Fp8Block(exclude_modules=patterns), MOE).ignored_modules(NAMES)
