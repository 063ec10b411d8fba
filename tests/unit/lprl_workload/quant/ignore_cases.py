"""Checkpoints of every family, what may be excluded of them, and what each reader calls their modules."""

from collections.abc import Iterator
from dataclasses import dataclass

from lprl_api.model.formats import Fp8Block, Fp8Channel, Int4Group, WeightFormat
from lprl_api.model.model_shape import Mla, ModelShape, Moe
from lprl_api.model.weight import LINEAR_KINDS
from lprl_api.model.weights import layer_weights
from lprl_api.spec.precision import Scope

_COMMON = {"layers": 3, "hidden": 256, "heads": 4, "kv_heads": 4, "head_dim": 64, "ffn": 512, "vocab": 100, "tied_embeddings": False}
_EXPERTS = Moe(experts=2, experts_per_token=1, expert_ffn=128)
_MLA = Mla(q_lora_rank=128, kv_lora_rank=128, qk_nope_head_dim=64, qk_rope_head_dim=32, v_head_dim=64)
_DEEPSEEK = _EXPERTS.model_copy(update={"shared_expert_ffn": 128, "dense_layers": 1})


def _shape(architecture: str, family: str, **more: object) -> ModelShape:
    return ModelShape.model_validate({"architecture": architecture, "family": family} | _COMMON | more)


SHAPES = {
    "llama": _shape("LlamaForCausalLM", "llama"),
    "qwen2": _shape("Qwen2ForCausalLM", "qwen2", tied_embeddings=True),
    "qwen3": _shape("Qwen3ForCausalLM", "qwen3", qk_norm=True),
    "qwen3-moe": _shape("Qwen3MoeForCausalLM", "qwen3-moe", qk_norm=True, moe=_EXPERTS),
    "deepseek-v3": _shape("DeepseekV3ForCausalLM", "deepseek-v3", moe=_DEEPSEEK, mla=_MLA, mtp_layers=1),
    "moonlight": _shape("DeepseekV3ForCausalLM", "deepseek-v3", moe=_DEEPSEEK, mla=_MLA.model_copy(update={"q_lora_rank": None})),
}
QKV, GATE_UP = {"qkv_proj": ("q_proj", "k_proj", "v_proj")}, {"gate_up_proj": ("gate_proj", "up_proj")}
DECLARED = {
    "sglang": {
        "qwen3-moe": QKV | GATE_UP,
        "deepseek-v3": {"fused_qkv_a_proj_with_mqa": ("q_a_proj", "kv_a_proj_with_mqa")},
    },
    "vllm": {
        "llama": QKV | GATE_UP,
        "qwen2": QKV | GATE_UP,
        "qwen3": QKV | GATE_UP,
        "qwen3-moe": QKV | GATE_UP,
        "deepseek-v3": GATE_UP | {"fused_qkv_a_proj": ("q_a_proj", "kv_a_proj_with_mqa")},
        "moonlight": GATE_UP,
    },
}
"""Fusions that the engine's class of a family declares; the others are fused too, undeclared."""
TOWER = ("vision_tower.encoder.layers.0.self_attn", "multi_modal_projector", "model.image_tower.vision_model.encoder.layers.2.self_attn")
PREFIXES = ("model.", "language_model.model.", "model.language_model.", "language_model.", "model.text_model.", "")
"""Of language models in checkpoints."""
ASKED = {
    "sglang": ("model.", "language_model.model."),
    "vllm": ("language_model.model.", "language_model."),
    "transformers": ("model.language_model.",),
}
"""What each calls a language model inside another, whatever the checkpoint says."""


@dataclass(frozen=True)
class Case:
    """One checkpoint in one format."""

    family: str
    fmt: WeightFormat
    prefix: str

    @property
    def shape(self) -> ModelShape:
        return SHAPES[self.family]

    def __str__(self) -> str:
        scope = getattr(self.fmt, "scope", None)
        said = [self.family, self.fmt.kind, *([scope.value] if scope else []), self.prefix or "-", *self.fmt.exclude_modules]
        return ",".join(said)


def cases(family: str) -> Iterator[Case]:
    """Yield what goes together: every format, scope, exclusion and prefix."""
    shape = SHAPES[family]
    for prefix in PREFIXES:
        for excluded in exclusions(shape, prefix):
            yield Case(family, Fp8Block(exclude_modules=excluded), prefix)
            yield Case(family, Fp8Channel(exclude_modules=excluded), prefix)
            yield Case(family, Int4Group(scope=Scope.ALL_LINEAR, exclude_modules=excluded), prefix)
        for excluded in [(), (f"{prefix}layers.1.*",)] if shape.moe else []:
            yield Case(family, Int4Group(scope=Scope.ROUTED_EXPERTS, exclude_modules=excluded), prefix)


def exclusions(shape: ModelShape, prefix: str) -> Iterator[tuple[str, ...]]:
    """Return what may be left out: parts of all layers, of one, and both."""
    mlp, attention, first = ("*.mlp.gate_proj", "*.mlp.up_proj"), ("*.self_attn.*",), (f"{prefix}layers.0.*",)
    yield from [(), attention, first, ("*.down_proj",) if shape.moe is None else ("*.self_attn.o_proj",)]
    if shape.moe is None:
        yield from [mlp, ("*.self_attn.[qkv]_proj",), (*mlp, f"{prefix}layers.2.self_attn.*")]
        return
    yield from [("*.experts.*",), (f"{prefix}layers.2.mlp.experts.*",), (f"{prefix}layers.2.self_attn.*", f"{prefix}layers.0.mlp.*")]
    if shape.mla:
        yield from [("*.shared_experts.*",), ("*.kv_b_proj",), (f"{prefix}layers.3.*",)]
    if shape.mla and shape.mla.q_lora_rank:
        yield ("*.self_attn.q_a_proj", "*.self_attn.kv_a_proj_with_mqa")


def layer_modules(shape: ModelShape, layer: int) -> Iterator[str]:
    """Yield the linear modules of a layer by their ends, each expert's too; a further layer predicts the token after next."""
    for weight in layer_weights(shape, layer):
        if weight.kind in LINEAR_KINDS:
            yield from (weight.module.replace("*", str(e)) for e in range(weight.copies))
    if layer >= shape.layers:
        yield from ("eh_proj", "shared_head.head")


def tensors(case: Case) -> list[str]:
    """Return the weights of the checkpoint."""
    shape, prefix = case.shape, case.prefix
    names = [f"{prefix}embed_tokens", f"{prefix}norm"]
    if not shape.tied_embeddings:
        names.append(prefix.removesuffix("model.") + "lm_head" if prefix.endswith("model.") else "lm_head")
    for layer in range(shape.layers + shape.mtp_layers):
        names += [f"{prefix}layers.{layer}.{end}" for end in layer_modules(shape, layer)]
        names += [f"{prefix}layers.{layer}.{end}" for end in ("input_layernorm", *(["mlp.gate"] if shape.moe else []))]
    if prefix != "model.":
        names += [f"{tower}.{part}" for tower in TOWER for part in ("q_proj", "k_proj", "v_proj")]
    return [f"{name}.weight" for name in names]


def fused_as(reader: str, parts: str) -> str | None:
    """Return what `reader` calls the module that holds projection `parts`, None for none."""
    own = {"q_proj": "qkv_proj", "gate_proj": "gate_up_proj"}
    own["q_a_proj"] = "fused_qkv_a_proj_with_mqa" if reader == "sglang" else "fused_qkv_a_proj"
    return own.get(parts)


def asked(case: Case, reader: str) -> Iterator[tuple[str, str]]:
    """Yield (name that `reader` asks for, module of the checkpoint it stands for) of the text model's linear modules."""
    shape = case.shape
    for prefix in ASKED[reader] if case.prefix != "model." else ("model.",):
        for layer in range(shape.layers + shape.mtp_layers):
            place, own = f"{prefix}layers.{layer}.", f"{case.prefix}layers.{layer}."
            if reader == "sglang" and layer >= shape.layers:
                place = "model.decoder."
            for end in layer_modules(shape, layer):
                yield from ((place + name, own + end) for name in _names(case, reader, end))


def _names(case: Case, reader: str, end: str) -> Iterator[str]:
    base, _, last = end.rpartition(".")
    if end in ("eh_proj", "shared_head.head"):  # no reader builds these with a quantisation
        return
    if ".experts." in end:
        if isinstance(case.fmt, Fp8Block):
            yield "mlp.experts"
        elif reader != "transformers":
            yield f"mlp.experts.0.{last}"
        return
    if reader == "transformers":
        yield end
        return
    single = case.family == "moonlight" and last == "q_proj"
    fused = None if single else fused_as(reader, last)
    if fused:
        yield f"{base}.{fused}"
    elif single or last not in ("k_proj", "v_proj", "up_proj", "kv_a_proj_with_mqa") or (last[0] == "k" and case.family == "moonlight"):
        yield end
