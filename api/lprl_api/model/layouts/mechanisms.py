"""Weights and caches of the mechanisms decoder layers are made of, by their dimensions. Names are those of Hugging Face modules."""

from collections.abc import Iterator

from lprl_api.model.model_shape import Cache, Mla
from lprl_api.model.weight import Kind, Sharding, Weight

SCALE_BYTES, SCALE_BLOCK = 4, 128
"""An indexer's keys are cached in FP8, with one float32 scale for 128 channels."""
STATE_BYTES, CONVOLUTION_BYTES = 4, 2
"""Of a linear layer's state (engines keep it in float32) and of its convolution's last inputs."""


def linear(module: str, kind: Kind, rows: int, cols: int, sharding: Sharding, copies: int = 1) -> Weight:
    """Return a matrix [rows, cols]."""
    return Weight(module, kind, rows, cols, sharding, copies)


def plain(module: str, rows: int, cols: int = 1, sharding: Sharding = "replicated", copies: int = 1) -> Weight:
    """Return a matrix that stays in high precision whatever the format."""
    return Weight(module, "plain", rows, cols, sharding, copies)


def vector(module: str, size: int, sharding: Sharding = "replicated") -> Weight:
    """Return a norm, a bias or another vector."""
    return Weight(module, "norm", size, 1, sharding)


def norms(hidden: int, *names: str) -> Iterator[Weight]:
    """Yield norms over the residual stream."""
    return (vector(name, hidden) for name in names)


def biased(weights: Iterator[Weight], bias: bool) -> Iterator[Weight]:
    """Yield linear weights and, with `bias`, a vector of as many channels as each has rows."""
    for weight in weights:
        yield weight
        if bias and weight.cols > 1:
            yield vector(f"{weight.module}.bias", weight.rows, "column" if weight.sharding == "column" else "replicated")


def attention(
    hidden: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    *,
    value_dim: int | None = None,
    query_rows: int | None = None,
    bias: bool = False,
    out_bias: bool = False,
    at: str = "self_attn",
    out: str = "o_proj",
) -> Iterator[Weight]:
    """Yield grouped-query attention: `value_dim` channels of a value where keys have others, `query_rows` where queries carry a gate."""
    value = value_dim or head_dim
    qkv = (
        linear(f"{at}.q_proj", "attention", query_rows or heads * head_dim, hidden, "column"),
        linear(f"{at}.k_proj", "attention", kv_heads * head_dim, hidden, "column"),
        linear(f"{at}.v_proj", "attention", kv_heads * value, hidden, "column"),
    )
    yield from biased(iter(qkv), bias)
    yield from biased(iter((linear(f"{at}.{out}", "attention", hidden, heads * value, "row"),)), out_bias)


def keys_and_values(kv_heads: int, head_dim: int, value_dim: int | None = None, window: int | None = None) -> Cache:
    """Return the cache of grouped-query attention, of at most `window` tokens."""
    return Cache(heads=kv_heads, channels=head_dim + (value_dim or head_dim), window=window)


def latent_attention(hidden: int, heads: int, mla: Mla, *, bias: bool = False) -> Iterator[Weight]:
    """Yield multi-head latent attention (DeepSeek); `bias`: of the first and of the last projections."""
    at, q_rank, kv_rank = "self_attn", mla.q_lora_rank, mla.kv_lora_rank
    nope, rope, value = mla.qk_nope_head_dim, mla.qk_rope_head_dim, mla.v_head_dim
    if q_rank is None:
        yield linear(f"{at}.q_proj", "attention", heads * (nope + rope), hidden, "column")
    else:
        yield from biased(iter((linear(f"{at}.q_a_proj", "attention", q_rank, hidden, "replicated"),)), bias)
        yield vector(f"{at}.q_a_layernorm", q_rank)
        yield linear(f"{at}.q_b_proj", "attention", heads * (nope + rope), q_rank, "column")
    yield from biased(iter((linear(f"{at}.kv_a_proj_with_mqa", "attention", kv_rank + rope, hidden, "replicated"),)), bias)
    yield vector(f"{at}.kv_a_layernorm", kv_rank)
    yield linear(f"{at}.kv_b_proj", "attention", heads * (nope + value), kv_rank, "column")
    yield from biased(iter((linear(f"{at}.o_proj", "attention", hidden, heads * value, "row"),)), bias)


def indexer(hidden: int, q_rank: int, heads: int, head_dim: int) -> Iterator[Weight]:
    """Yield the indexer that picks the tokens of sparse latent attention."""
    at = "self_attn.indexer"
    yield linear(f"{at}.wq_b", "attention", heads * head_dim, q_rank, "replicated")
    yield linear(f"{at}.wk", "attention", head_dim, hidden, "replicated")
    yield from (vector(f"{at}.k_norm", head_dim), vector(f"{at}.k_norm.bias", head_dim))
    yield plain(f"{at}.weights_proj", heads, hidden)


def indexer_keys(head_dim: int) -> Cache:
    """Return the cache of an indexer: FP8 keys and their scales, whole on every rank."""
    return Cache(bytes=head_dim + SCALE_BYTES * -(-head_dim // SCALE_BLOCK))


def linear_state(heads: int, state: int, convolved: int, kernel: int) -> Cache:
    """Return what a linear layer keeps: `state` elements, and the last inputs of a convolution over `convolved` channels."""
    return Cache(heads=heads, state=STATE_BYTES * state + CONVOLUTION_BYTES * convolved * (kernel - 1))


def gated_mlp(at: str, kind: Kind, hidden: int, ffn: int, copies: int = 1) -> Iterator[Weight]:
    """Yield gate, up and down projection."""
    yield linear(f"{at}.gate_proj", kind, ffn, hidden, "column", copies)
    yield linear(f"{at}.up_proj", kind, ffn, hidden, "column", copies)
    yield linear(f"{at}.down_proj", kind, hidden, ffn, "row", copies)


def experts(hidden: int, count: int, ffn: int, *, at: str = "mlp", correction: bool = False) -> Iterator[Weight]:
    """Yield a router, with the correction bias of its scores where it has one, and its gated experts."""
    yield linear(f"{at}.gate", "router", count, hidden, "replicated")
    if correction:
        yield Weight(f"{at}.gate.e_score_correction_bias", "router", count, 1, "replicated")
    yield from gated_mlp(f"{at}.experts.*", "expert", hidden, ffn, count)
