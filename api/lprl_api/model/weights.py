"""Every weight of a model by module kind, from its shape: parameter counts, selection and bytes of a format."""

from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from functools import cache, lru_cache
from typing import NamedTuple

from lprl_api.model.formats import WeightFormat
from lprl_api.model.model_shape import Mla, ModelShape
from lprl_api.model.selection import TOGETHER
from lprl_api.model.weight import LINEAR_KINDS, Kind, Sharding, Weight
from lprl_api.model.weight_rows import layers_of, weight_of

KEPT = 32
"""Models, or models in a format, whose weights are kept: a plan walks over them for each layout that it tries."""


class Sized(NamedTuple):
    """A weight in a format."""

    module: str
    weight: Weight
    taken: bool
    """Whether the format quantises it."""
    nbytes: int
    """Of all copies, scales included; BF16 where it is not quantised."""


def _linear(module: str, kind: Kind, rows: int, cols: int, sharding: Sharding, copies: int = 1) -> Weight:
    return Weight(module, kind, rows, cols, sharding, copies)


def _standard_attention(shape: ModelShape) -> Iterator[Weight]:
    query, key = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    for name, rows in (("q_proj", query), ("k_proj", key), ("v_proj", key)):
        yield _linear(f"self_attn.{name}", "attention", rows, shape.hidden, "column")
        if shape.attention_bias:
            yield Weight(f"self_attn.{name}.bias", "norm", rows, 1, "column")
    yield _linear("self_attn.o_proj", "attention", shape.hidden, query, "row")
    if shape.attention_bias and shape.family != "qwen2":
        yield Weight("self_attn.o_proj.bias", "norm", shape.hidden, 1, "replicated")
    if shape.qk_norm:
        yield Weight("self_attn.q_norm", "norm", shape.head_dim, 1, "replicated")
        yield Weight("self_attn.k_norm", "norm", shape.head_dim, 1, "replicated")


def _latent_attention(shape: ModelShape, mla: Mla) -> Iterator[Weight]:
    query = shape.heads * (mla.qk_nope_head_dim + mla.qk_rope_head_dim)
    if mla.q_lora_rank is None:
        yield _linear("self_attn.q_proj", "attention", query, shape.hidden, "column")
    else:
        yield _linear("self_attn.q_a_proj", "attention", mla.q_lora_rank, shape.hidden, "replicated")
        if shape.attention_bias:
            yield Weight("self_attn.q_a_proj.bias", "norm", mla.q_lora_rank, 1, "replicated")
        yield Weight("self_attn.q_a_layernorm", "norm", mla.q_lora_rank, 1, "replicated")
        yield _linear("self_attn.q_b_proj", "attention", query, mla.q_lora_rank, "column")
    latent = mla.kv_lora_rank + mla.qk_rope_head_dim
    yield _linear("self_attn.kv_a_proj_with_mqa", "attention", latent, shape.hidden, "replicated")
    if shape.attention_bias:
        yield Weight("self_attn.kv_a_proj_with_mqa.bias", "norm", latent, 1, "replicated")
    yield Weight("self_attn.kv_a_layernorm", "norm", mla.kv_lora_rank, 1, "replicated")
    value = shape.heads * (mla.qk_nope_head_dim + mla.v_head_dim)
    yield _linear("self_attn.kv_b_proj", "attention", value, mla.kv_lora_rank, "column")
    yield _linear("self_attn.o_proj", "attention", shape.hidden, shape.heads * mla.v_head_dim, "row")
    if shape.attention_bias:
        yield Weight("self_attn.o_proj.bias", "norm", shape.hidden, 1, "replicated")


def _gated_mlp(prefix: str, kind: Kind, hidden: int, ffn: int, copies: int = 1) -> Iterator[Weight]:
    yield _linear(f"{prefix}.gate_proj", kind, ffn, hidden, "column", copies)
    yield _linear(f"{prefix}.up_proj", kind, ffn, hidden, "column", copies)
    yield _linear(f"{prefix}.down_proj", kind, hidden, ffn, "row", copies)


def _mlp(shape: ModelShape, layer: int) -> Iterator[Weight]:
    moe = shape.moe
    if moe is None or layer < moe.dense_layers:
        yield from _gated_mlp("mlp", "mlp", shape.hidden, shape.ffn)
        if shape.mlp_bias:
            yield Weight("mlp.gate_proj.bias", "norm", shape.ffn, 1, "column")
            yield Weight("mlp.up_proj.bias", "norm", shape.ffn, 1, "column")
            yield Weight("mlp.down_proj.bias", "norm", shape.hidden, 1, "replicated")
        return
    yield Weight("mlp.gate", "router", moe.experts, shape.hidden, "replicated")
    if shape.family == "deepseek-v3":
        yield Weight("mlp.gate.e_score_correction_bias", "router", moe.experts, 1, "replicated")
    yield from _gated_mlp("mlp.experts.*", "expert", shape.hidden, moe.expert_ffn, moe.experts)
    if moe.shared_expert_ffn:
        yield from _gated_mlp("mlp.shared_experts", "shared-expert", shape.hidden, moe.shared_expert_ffn)


@cache
def layer_weights(shape: ModelShape, layer: int) -> tuple[Weight, ...]:
    """Return the weights of decoder layer `layer` (0-based; multi-token-prediction layers are not included)."""
    if shape.layout is not None:
        parts = (part for part in shape.layout.parts if layer in layers_of(part.layers))
        return tuple(weight_of(row) for part in parts for row in part.rows)
    attention = _latent_attention(shape, shape.mla) if shape.mla else _standard_attention(shape)
    norms = (Weight(name, "norm", shape.hidden, 1, "replicated") for name in ("input_layernorm", "post_attention_layernorm"))
    return (*norms, *attention, *_mlp(shape, layer))


def embedding_weight(shape: ModelShape) -> Weight:
    """Return the token embedding."""
    return Weight("model.embed_tokens", "embedding", shape.vocab, shape.hidden, "vocab")


@cache
def outside_weights(shape: ModelShape) -> tuple[Weight, ...]:
    """Return the weights that are neither in a layer nor embedding, final norm or head; no tower's."""
    return tuple(weight_of(row) for row in shape.layout.outside) if shape.layout is not None else ()


def head_weights(shape: ModelShape) -> tuple[Weight, ...]:
    """Return the final norm and, unless tied to the embedding, the output head."""
    norm = Weight("model.norm", "norm", shape.hidden, 1, "replicated")
    return (norm,) if shape.tied_embeddings else (norm, Weight("lm_head", "head", shape.vocab, shape.hidden, "vocab"))


@lru_cache(KEPT)
def all_weights(shape: ModelShape) -> tuple[tuple[str, Weight], ...]:
    """Return (Hugging Face module name, weight) of each; the copies of an expert weight appear once, with `*` for the expert."""
    return tuple(_all_weights(shape))


def _all_weights(shape: ModelShape) -> Iterator[tuple[str, Weight]]:
    yield "model.embed_tokens", embedding_weight(shape)
    for weight in outside_weights(shape):
        yield weight.module, weight
    for layer in range(shape.layers):
        for weight in layer_weights(shape, layer):
            yield f"model.layers.{layer}.{weight.module}", weight
    for weight in head_weights(shape):
        yield weight.module, weight


@cache
def parameters(shape: ModelShape) -> int:
    """Return the number of weights of the language model, multi-token-prediction layers not counted."""
    return sum(weight.parameters for _, weight in all_weights(shape))


def whole_parameters(shape: ModelShape) -> int:
    """Return the number of weights with those of towers, where they are known."""
    return parameters(shape) + (shape.tower_parameters or 0)


@cache
def active_parameters(shape: ModelShape) -> int:
    """Return the number of weights one token passes through, embedding included."""
    share = shape.moe.experts_per_token if shape.moe else 0
    return sum(w.rows * w.cols * (min(w.copies, share) if w.kind == "expert" else w.copies) for _, w in all_weights(shape))


def selects(fmt: WeightFormat, module: str, weight: Weight) -> bool:
    """Return whether a format quantises this weight; experts (`experts.*`) are left out together or not at all."""
    return weight.kind in LINEAR_KINDS and fmt.quantises(module.replace("experts.*", "experts.0"), routed=weight.kind == "expert")


def fused_groups(modules: Iterable[str]) -> list[tuple[str, ...]]:
    """Return the groups of a layer's modules that an engine runs as one matrix, those it has (a module alone is no group)."""
    present = dict.fromkeys(modules)
    found = []
    for first in present:
        base, _, leaf = first.rpartition(".")
        group = next((names for names in TOGETHER if names[0] == leaf), ())
        members = tuple(m for m in (f"{base}.{name}" for name in group) if m in present)
        found += [members] if len(members) > 1 else []
    return found


@cache
def unmatched(shape: ModelShape, patterns: tuple[str, ...]) -> tuple[str, ...]:
    """Return the patterns of excluded modules that match none of a model's, multi-token-prediction layers included."""
    modules = [module for module, _ in all_weights(shape)]
    for layer in range(shape.layers, shape.layers + shape.mtp_layers):
        modules += [f"model.layers.{layer}.{name}" for name in ("eh_proj", "enorm", "hnorm", "shared_head.head", "shared_head.norm")]
        modules += [f"model.layers.{layer}.{weight.module}" for weight in layer_weights(shape, shape.layers - 1)]
    return tuple(pattern for pattern in patterns if not any(_names(module, pattern, shape) for module in modules))


def _names(module: str, pattern: str, shape: ModelShape) -> bool:
    """Return whether a pattern matches a module, or any of the experts `*` stands for."""
    # Only a pattern with a digit can tell experts apart.
    experts = shape.moe.experts if shape.moe and "experts.*" in module and any(c.isdigit() for c in pattern) else 1
    return any(fnmatchcase(module.replace("experts.*", f"experts.{expert}"), pattern) for expert in range(experts))


def weight_bytes(fmt: WeightFormat, weight: Weight, selected: bool) -> int:
    """Return the bytes of a weight (all copies) in a format, scales included; BF16 where it is not selected."""
    return fmt.nbytes(weight.rows, weight.cols) * weight.copies if selected else 2 * weight.parameters


@lru_cache(KEPT)
def sized_weights(shape: ModelShape, fmt: WeightFormat) -> tuple[Sized, ...]:
    """Return all weights in a format, in the order of `all_weights`."""
    found = ((module, weight, selects(fmt, module, weight)) for module, weight in all_weights(shape))
    return tuple(Sized(module, weight, taken, weight_bytes(fmt, weight, taken)) for module, weight, taken in found)


@lru_cache(KEPT)
def format_bytes(shape: ModelShape, fmt: WeightFormat) -> int:
    """Return the bytes of a whole checkpoint in a format, towers in BF16 (tensor data; headers and tokenizer are small)."""
    towers = 2 * (shape.tower_parameters or 0)
    return towers + sum(found.nbytes for found in sized_weights(shape, fmt))
