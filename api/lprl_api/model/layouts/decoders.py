"""Decoders whose every layer has grouped-query attention and an MLP or experts: what is not usual of each is a row of a table."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from lprl_api.model.layouts import mechanisms as m
from lprl_api.model.layouts.source import NORMS, Draft, Source
from lprl_api.model.model_shape import ModelShape, Moe

FOUR_NORMS = (*NORMS, "pre_feedforward_layernorm", "post_feedforward_layernorm")
AFTER = ("post_attention_layernorm", "post_feedforward_layernorm")
Flag = bool | str
"""A fact of the class, or the key of config.json that says it (false where it says nothing)."""


@dataclass(frozen=True)
class Experts:
    """What a family's experts are called in config.json."""

    count: str = "num_experts"
    ffn: str = "moe_intermediate_size"
    correction: bool = False
    """Scores have a correction bias."""
    shared: str | None = None
    """Number of shared experts, each as wide as a routed one."""
    dense: str | None = None
    """Number of leading layers with a dense MLP."""


@dataclass(frozen=True)
class Decoder:
    """What a family has that the usual decoder has not."""

    norms: tuple[str, ...] = NORMS
    qk_norm: Literal["head", "whole", None] = None
    """Queries and keys are normalised by head, or over all heads."""
    qk_flag: str | None = None
    """Key that says whether they are."""
    bias: Flag = False
    out_bias: Flag = False
    mlp_bias: Flag = False
    gated: bool = True
    """The MLP has a gate."""
    norm_bias: bool = False
    """Norms have a bias, and so has the last one."""
    tied: bool = False
    """The head is the embedding where nothing is said."""
    window: Literal["all", "layers", None] = None
    """Layers whose attention is bounded by `sliding_window`: all, or those of `layer_types`."""
    pattern: int = 0
    """Where `layer_types` is missing: every so manieth layer attends to everything."""
    experts: Experts | None = None
    on: tuple[str, ...] = ()
    """Flags that are true where they are missing."""
    defaults: Mapping[str, int] = field(default_factory=dict)
    """What the class takes for a number that is missing."""


_GEMMA = Decoder(norms=FOUR_NORMS, tied=True, window="layers", bias="attention_bias", out_bias="attention_bias")
DECODERS: Mapping[str, Decoder] = {
    "mistral": Decoder(window="all"),
    "ministral": Decoder(window="layers"),
    "ministral3": Decoder(window="all"),
    "mixtral": Decoder(experts=Experts("num_local_experts", "intermediate_size")),
    "granitemoe": Decoder(bias="attention_bias", out_bias="attention_bias", experts=Experts("num_local_experts", "intermediate_size")),
    "phi3": Decoder(),
    "qwen3_vl_text": Decoder(qk_norm="head", bias="attention_bias", out_bias="attention_bias"),
    "qwen3_vl_moe_text": Decoder(qk_norm="head", bias="attention_bias", out_bias="attention_bias", experts=Experts()),
    **dict.fromkeys(("qwen2_vl", "qwen2_vl_text", "qwen2_5_vl", "qwen2_5_vl_text"), Decoder(bias=True)),
    "glm4v_text": Decoder(norms=(*NORMS, "post_self_attn_layernorm", "post_mlp_layernorm"), bias=True),
    "glm4v_moe_text": Decoder(
        bias="attention_bias",
        on=("attention_bias",),
        experts=Experts("n_routed_experts", correction=True, shared="n_shared_experts", dense="first_k_dense_replace"),
        defaults={"first_k_dense_replace": 1, "n_shared_experts": 1},
    ),
    "solar_open": Decoder(
        bias="attention_bias",
        experts=Experts("n_routed_experts", correction=True, shared="n_shared_experts"),
        defaults={"n_shared_experts": 1},
    ),
    "cohere2": Decoder(norms=("input_layernorm",), tied=True, window="layers", pattern=4, bias="attention_bias", out_bias="attention_bias"),
    "glm4": Decoder(norms=(*NORMS, "post_self_attn_layernorm", "post_mlp_layernorm"), bias="attention_bias"),
    "glm4_moe": Decoder(
        qk_norm="head",
        qk_flag="use_qk_norm",
        bias="attention_bias",
        experts=Experts("n_routed_experts", correction=True, shared="n_shared_experts", dense="first_k_dense_replace"),
        defaults={"first_k_dense_replace": 1, "n_shared_experts": 1},
    ),
    "dots1": Decoder(
        qk_norm="head",
        bias="attention_bias",
        out_bias="attention_bias",
        experts=Experts("n_routed_experts", correction=True, shared="n_shared_experts", dense="first_k_dense_replace"),
    ),
    "minimax_m2": Decoder(qk_norm="whole", experts=Experts("num_local_experts", "intermediate_size", correction=True)),
    "olmo2": Decoder(norms=AFTER, qk_norm="whole", bias="attention_bias", out_bias="attention_bias"),
    "olmo3": Decoder(norms=AFTER, qk_norm="whole", bias="attention_bias", out_bias="attention_bias", window="layers", pattern=4),
    "olmoe": Decoder(qk_norm="whole", bias="attention_bias", out_bias="attention_bias", experts=Experts(ffn="intermediate_size")),
    "smollm3": Decoder(bias="attention_bias", out_bias="attention_bias", mlp_bias="mlp_bias", tied=True),
    "seed_oss": Decoder(bias="attention_bias", out_bias="attention_out_bias", mlp_bias="mlp_bias"),
    "granite": Decoder(bias="attention_bias", out_bias="attention_bias", mlp_bias="mlp_bias", tied=True),
    "ernie4_5": Decoder(bias="use_bias", out_bias="use_bias", mlp_bias="use_bias", tied=True),
    "hunyuan_v1_dense": Decoder(qk_norm="head", bias="attention_bias", out_bias="attention_bias", tied=False),
    "exaone4": Decoder(norms=AFTER, qk_norm="head", window="layers"),
    "nemotron": Decoder(gated=False, norm_bias=True, bias="attention_bias", out_bias="attention_bias", mlp_bias="mlp_bias"),
    "gemma2": _GEMMA,
    "gemma3_text": Decoder(
        norms=FOUR_NORMS, qk_norm="head", tied=True, window="layers", pattern=6, bias="attention_bias", out_bias="attention_bias"
    ),
}
"""model_type -> what its layers have."""


def decoder(source: Source, family: Decoder) -> ModelShape:
    """Return the shape of a decoder of the table."""
    draft, kv_heads = Draft(source), _number(source, family, "num_key_value_heads", source.heads)
    head_dim = _number(source, family, "head_dim", source.hidden // source.heads)
    _attention(draft, family, kv_heads, head_dim)
    width = None if family.experts is None else source.read.number(family.experts.ffn)
    ffn = source.read.number("intermediate_size", width)
    moe = _mlps(draft, family, ffn)
    if family.norm_bias:
        draft.outside.append(m.vector("model.norm.bias", source.hidden))
    mtp = source.read.number("num_nextn_predict_layers", 0, least=0)
    return draft.shape(ffn=ffn, head_dim=head_dim, kv_heads=kv_heads, moe=moe, mtp=mtp, tied=family.tied)


def _attention(draft: Draft, family: Decoder, kv_heads: int, head_dim: int) -> None:
    source = draft.source
    bias, out_bias = _flag(source, family, family.bias), _flag(source, family, family.out_bias)
    draft.add(m.attention(source.hidden, source.heads, kv_heads, head_dim, bias=bias, out_bias=out_bias))
    draft.add(m.norms(source.hidden, *family.norms))
    if family.norm_bias:
        draft.add(m.norms(source.hidden, *(f"{name}.bias" for name in family.norms)))
    if family.qk_norm is not None and (family.qk_flag is None or source.read.flag(family.qk_flag, False)):
        queries, keys = (head_dim, head_dim) if family.qk_norm == "head" else (source.heads * head_dim, kv_heads * head_dim)
        draft.add((m.vector("self_attn.q_norm", queries), m.vector("self_attn.k_norm", keys)))
    window, bounded = source.read.optional("sliding_window"), _bounded(source, family)
    draft.add((), bounded, m.keys_and_values(kv_heads, head_dim, window=window))
    draft.add((), sorted(set(range(source.layers)) - set(bounded)), m.keys_and_values(kv_heads, head_dim))


def _bounded(source: Source, family: Decoder) -> list[int]:
    """Return the layers whose attention sees `sliding_window` tokens."""
    if family.window is None or not source.read.has("sliding_window"):
        return []
    if family.window == "all":
        return list(range(source.layers))
    every = source.read.number("sliding_window_pattern", family.pattern, least=0) if family.pattern else 2
    default = ["full_attention" if every and (layer + 1) % every == 0 else "sliding_attention" for layer in range(source.layers)]
    return [layer for layer, kind in enumerate(source.kinds("layer_types", default)) if kind == "sliding_attention"]


def _mlps(draft: Draft, family: Decoder, ffn: int) -> Moe | None:
    source, called = draft.source, family.experts
    dense, sparse = list(range(source.layers)), list[int]()
    if called is not None:
        dense, sparse = source.dense_first(called.dense, family.defaults.get(called.dense, 0)) if called.dense else ([], dense)
    mlp = m.gated_mlp("mlp", "mlp", source.hidden, ffn)
    if not family.gated:
        mlp = (weight for weight in mlp if "gate" not in weight.module)
    draft.add(m.biased(mlp, _flag(source, family, family.mlp_bias)), dense)
    if called is None:
        return None
    count, width = _count(source, called), source.read.number(called.ffn)
    shared = _number(source, family, called.shared, 0, least=0) * width if called.shared else 0
    draft.add(m.experts(source.hidden, count, width, correction=called.correction), sparse)
    if shared:
        draft.add(m.gated_mlp("mlp.shared_experts", "shared-expert", source.hidden, shared), sparse)
    chosen = source.read.number("num_experts_per_tok")
    return Moe(experts=count, experts_per_token=chosen, expert_ffn=width, shared_expert_ffn=shared, dense_layers=len(dense))


def _count(source: Source, called: Experts) -> int:
    """Return how many experts: transformers 5 saves some families' under another name than published files have."""
    return source.read.number(called.count if source.read.has(called.count) else "num_local_experts")


def _flag(source: Source, family: Decoder, flag: Flag) -> bool:
    return flag if isinstance(flag, bool) else source.read.flag(flag, flag in family.on)


def _number(source: Source, family: Decoder, key: str, default: int, *, least: int = 1) -> int:
    return source.read.number(key, family.defaults.get(key, default), least=least)
