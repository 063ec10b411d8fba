import pytest

from lprl_api.errors import UserError
from lprl_api.model.formats import Bf16, Fp8Block, Fp8Channel, Fp8Tensor, Int4Group
from lprl_api.model.model_shape import ModelShape, Moe
from lprl_api.spec.precision import Scope
from lprl_workload.quant.config_json import parse_quantization_config, quantization_config, strip_quantization
from lprl_workload.quant.select import Selection

SHAPE = ModelShape(
    architecture="Qwen3MoeForCausalLM",
    family="qwen3-moe",
    layers=1,
    hidden=256,
    heads=4,
    kv_heads=4,
    head_dim=64,
    ffn=512,
    vocab=100,
    tied_embeddings=True,
    moe=Moe(experts=2, experts_per_token=1, expert_ffn=128),
)
ATTENTION = [f"model.layers.0.self_attn.{p}_proj.weight" for p in "qkvo"]
EXPERTS = [f"model.layers.0.mlp.experts.{e}.{p}_proj.weight" for e in (0, 1) for p in ("gate", "up", "down")]
NAMES = ["model.embed_tokens.weight", "model.norm.weight", "model.layers.0.mlp.gate.weight", *ATTENTION, *EXPERTS]


@pytest.mark.parametrize(
    "fmt",
    [
        Bf16(),
        Fp8Block(),
        Fp8Block(scale_format="ue8m0"),
        Fp8Block(exclude_modules=("*.self_attn.*",)),
        Fp8Block(activations="none"),
        Fp8Channel(activations="none"),
        Fp8Tensor(activations="none", exclude_modules=("*.self_attn.*",)),
        Fp8Channel(),
        Fp8Channel(exclude_modules=("*.self_attn.o_proj",)),
        Fp8Tensor(),
        Int4Group(group_size=32),
        Int4Group(scope=Scope.ALL_LINEAR),
        Int4Group(scope=Scope.ALL_LINEAR, exclude_modules=("*.experts.*",)),
    ],
    ids=lambda f: f.model_dump_json(exclude_defaults=True),
)
def test_what_is_written_reads_back_as_the_same_selection(fmt) -> None:
    section = quantization_config(fmt, Selection(fmt, SHAPE), NAMES)
    parsed = parse_quantization_config({"model_type": "qwen3_moe", "quantization_config": section}, SHAPE)
    assert parsed.kind == fmt.kind
    same = fmt.model_dump(exclude={"exclude_modules"})
    assert parsed.model_dump(exclude={"exclude_modules"}) == same
    taken, again = (([n for n in NAMES if Selection(f, SHAPE).takes(n)]) for f in (fmt, parsed))
    assert taken == again


@pytest.mark.parametrize("fmt", [Fp8Channel, Fp8Tensor])
def test_weight_only_fp8_names_no_scheme_for_activations(fmt) -> None:
    schemes = {}
    for activations in ("dynamic", "none"):
        section = quantization_config(fmt(activations=activations), Selection(fmt(), SHAPE), NAMES)
        assert section is not None
        schemes[activations] = section["config_groups"]["group_0"]["input_activations"]
    assert schemes["none"] is None and schemes["dynamic"]["dynamic"] is True


def test_a_tied_head_is_listed_too() -> None:
    section = quantization_config(Fp8Block(), Selection(Fp8Block(), SHAPE), NAMES)
    assert section is not None
    assert section["modules_to_not_convert"] == ["lm_head", "model.layers.0.mlp.gate"]


KIMI = {
    "quant_method": "compressed-tensors",
    "format": "pack-quantized",
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32, "symmetric": True},
        }
    },
    "ignore": ["lm_head", "re:.*self_attn.*", "re:.*shared_experts.*", "re:.*mlp\\.(gate|up|gate_up|down)_proj.*"],
}
DEEPSEEK = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}


@pytest.mark.parametrize(
    ("section", "want"),
    [
        pytest.param(None, Bf16(), id="none"),
        pytest.param(KIMI, Int4Group(group_size=32), id="kimi-k2-thinking"),
        pytest.param(DEEPSEEK, Fp8Block(), id="deepseek-v3"),
        pytest.param(DEEPSEEK | {"scale_fmt": "ue8m0"}, Fp8Block(scale_format="ue8m0"), id="deepseek-v3.1"),
        pytest.param({"quant_method": "fp8", "activation_scheme": "dynamic"}, Fp8Tensor(), id="fp8-without-blocks"),
    ],
)
@pytest.mark.parametrize("nested", [False, True], ids=["root", "text_config"])
def test_foreign_configs(section: dict[str, object] | None, want, nested: bool) -> None:
    config: dict[str, object] = {"model_type": "x"} | ({"quantization_config": section} if section else {})
    assert parse_quantization_config({"text_config": config} if nested else config) == want


def _kimi(**weights: object) -> dict[str, object]:
    scheme = KIMI["config_groups"]["group_0"]["weights"] | weights  # type: ignore[index]
    return KIMI | {"config_groups": {"group_0": {"targets": ["Linear"], "weights": scheme}}}


@pytest.mark.parametrize(
    ("section", "match"),
    [
        pytest.param({"quant_method": "awq"}, "quant_method: 'awq'", id="method"),
        pytest.param(_kimi(symmetric=False), "asymmetric", id="asymmetric"),
        pytest.param(_kimi(num_bits=8), "8 bits", id="int8"),
        pytest.param(_kimi(group_size=16), "group_size 16", id="group"),
        pytest.param(_kimi() | {"format": "int-quantized"}, "int-quantized", id="format"),
        pytest.param(KIMI | {"config_groups": {}}, "0 weight schemes", id="no-scheme"),
        pytest.param(KIMI | {"ignore": ["re:.*(a|b)experts.*", "re:model.layers.[0-9].*"]}, "ignore pattern", id="pattern"),
        pytest.param(DEEPSEEK | {"weight_block_size": [128]}, "weight_block_size", id="block"),
    ],
)
def test_unsupported_configs_name_the_field(section: dict[str, object], match: str) -> None:
    with pytest.raises(UserError, match=match):
        parse_quantization_config({"quantization_config": section})


def test_strip_removes_every_section_and_nothing_else() -> None:
    config = {"a": 1, "quantization_config": {}, "text_config": {"b": 2, "compression_config": {}}}
    assert strip_quantization(config) == {"a": 1, "text_config": {"b": 2}}
    assert "quantization_config" in config
