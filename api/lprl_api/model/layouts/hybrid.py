"""Families that mix attention with linear layers, whose state does not grow (Qwen3-Next, Qwen3.5, Nemotron-H), and Qwen2-MoE."""

from collections.abc import Iterator

from lprl_api.model.layouts import mechanisms as m
from lprl_api.model.layouts.source import FULL, NORMS, Draft, Source
from lprl_api.model.model_shape import Cache, ModelShape, Moe
from lprl_api.model.weight import Kind, Weight

_RENAMED = {"linear_attention": "mamba", FULL: "attention"}
_LETTERS = {"M": "mamba", "*": "attention", "E": "moe", "-": "mlp"}


def qwen_hybrid(source: Source) -> ModelShape:
    """Return the shape of Qwen3-Next, Qwen3.5 and 3.6: three gated delta layers to one of gated attention."""
    draft, read = Draft(source), source.read
    every = read.number("full_attention_interval", 4)
    default = ["full_attention" if (layer + 1) % every == 0 else "linear_attention" for layer in range(source.layers)]
    kinds = source.kinds("layer_types", default, ("linear_attention", FULL))
    linear = [layer for layer, kind in enumerate(kinds) if kind == "linear_attention"]
    full = [layer for layer, kind in enumerate(kinds) if kind != "linear_attention"]
    weights, state = _delta(source, packed=str(source.text.get("model_type")).startswith("qwen3_next"))
    draft.add(weights, linear, state)
    dim, kv_heads, bias = read.number("head_dim", 256), source.kv_heads, read.flag("attention_bias", False)
    rows = 2 * source.heads * dim
    gated = m.attention(source.hidden, source.heads, kv_heads, dim, query_rows=rows, bias=bias, out_bias=bias)
    draft.add(gated, full, m.keys_and_values(kv_heads, dim))
    draft.add((m.vector("self_attn.q_norm", dim), m.vector("self_attn.k_norm", dim)), full)
    draft.add(m.norms(source.hidden, *NORMS))
    moe, ffn = _qwen_mlps(draft)
    mtp = read.number("mtp_num_hidden_layers", 0, least=0)
    return draft.shape(ffn=ffn, head_dim=dim, kv_heads=kv_heads, moe=moe, mtp=mtp)


def qwen2_moe(source: Source) -> ModelShape:
    """Return the shape of Qwen2-MoE: usual attention, and the later ones' experts beside a shared one with a gate."""
    draft, read = Draft(source), source.read
    dim, kv_heads = source.head_dim, source.kv_heads
    weights = m.attention(source.hidden, source.heads, kv_heads, dim, bias=read.flag("qkv_bias", True))
    draft.add(weights, cache=m.keys_and_values(kv_heads, dim))
    draft.add(m.norms(source.hidden, *NORMS))
    moe, ffn = _qwen_mlps(draft)
    return draft.shape(ffn=ffn, head_dim=dim, kv_heads=kv_heads, moe=moe)


def _delta(source: Source, *, packed: bool) -> tuple[Iterator[Weight], Cache]:
    """Return a gated delta layer's weights and state; Qwen3-Next packs its projections."""
    read, at, hidden = source.read, "linear_attn", source.hidden
    keys, values = read.number("linear_num_key_heads"), read.number("linear_num_value_heads")
    key_dim, value_dim = read.number("linear_key_head_dim"), read.number("linear_value_head_dim")
    kernel, key, value = read.number("linear_conv_kernel_dim", 4), keys * key_dim, values * value_dim
    convolved = 2 * key + value

    def weights() -> Iterator[Weight]:
        if packed:
            yield m.linear(f"{at}.in_proj_qkvz", "attention", convolved + value, hidden, "column")
            yield m.plain(f"{at}.in_proj_ba", 2 * values, hidden, "column")
        else:
            yield m.linear(f"{at}.in_proj_qkv", "attention", convolved, hidden, "column")
            yield m.linear(f"{at}.in_proj_z", "attention", value, hidden, "column")
            yield m.plain(f"{at}.in_proj_b", values, hidden, "column")
            yield m.plain(f"{at}.in_proj_a", values, hidden, "column")
        yield m.plain(f"{at}.conv1d", convolved, kernel, "column")
        yield from (m.vector(f"{at}.dt_bias", values, "column"), m.vector(f"{at}.A_log", values, "column"))
        yield m.vector(f"{at}.norm", value_dim)
        yield m.linear(f"{at}.out_proj", "attention", hidden, value, "row")

    return weights(), m.linear_state(values, values * key_dim * value_dim, convolved, kernel)


def _qwen_mlps(draft: Draft) -> tuple[Moe | None, int]:
    source, read = draft.source, draft.source.read
    if not read.has("num_experts"):
        ffn = read.number("intermediate_size")
        draft.add(m.gated_mlp("mlp", "mlp", source.hidden, ffn))
        return None, ffn
    step, only = read.number("decoder_sparse_step", 1), source.text.get("mlp_only_layers") or ()
    dense = [layer for layer in range(source.layers) if layer in only or (layer + 1) % step]
    sparse = [layer for layer in range(source.layers) if layer not in dense]
    count, width = read.number("num_experts"), read.number("moe_intermediate_size")
    shared = read.number("shared_expert_intermediate_size")
    ffn = read.number("intermediate_size", width)
    draft.add(m.gated_mlp("mlp", "mlp", source.hidden, ffn), dense)
    draft.add(m.experts(source.hidden, count, width), sparse)
    draft.add(m.gated_mlp("mlp.shared_expert", "shared-expert", source.hidden, shared), sparse)
    draft.add((m.plain("mlp.shared_expert_gate", 1, source.hidden),), sparse)
    chosen = read.number("num_experts_per_tok")
    return Moe(experts=count, experts_per_token=chosen, expert_ffn=width, shared_expert_ffn=shared), ffn


def nemotron_h(source: Source) -> ModelShape:
    """Return the shape of Nemotron-H and Nemotron 3: each layer is one of Mamba-2, attention, an MLP or experts."""
    draft, read = Draft(source), source.read
    kinds = _blocks(source)
    where = {kind: [layer for layer, found in enumerate(kinds) if found == kind] for kind in _LETTERS.values()}
    weights, state = _mamba(source)
    draft.add(weights, where["mamba"], state)
    dim, kv_heads = read.number("head_dim", read.number("attention_head_dim", 128)), source.kv_heads
    attention = m.attention(source.hidden, source.heads, kv_heads, dim, at="mixer")
    draft.add(attention, where["attention"], m.keys_and_values(kv_heads, dim))
    draft.add(m.norms(source.hidden, "norm"))
    ffn = read.number("intermediate_size")
    bias = read.flag("mlp_bias", False)
    draft.add(m.biased(_ungated("mixer", "mlp", source.hidden, ffn), bias), where["mlp"])
    moe = _nemotron_experts(draft, where["moe"]) if where["moe"] else None
    mtp = read.number("num_nextn_predict_layers", 0, least=0)
    return draft.shape(ffn=ffn, head_dim=dim, kv_heads=kv_heads, moe=moe, mtp=mtp)


def _blocks(source: Source) -> tuple[str, ...]:
    """Return the kind of each layer, from its list or from the pattern of letters that went before it."""
    pattern = source.text.get("hybrid_override_pattern")
    if source.text.get("layers_block_type") is not None or not isinstance(pattern, str):
        found = source.kinds("layers_block_type", (), (*_LETTERS.values(), *_RENAMED))
        return tuple(_RENAMED.get(kind, kind) for kind in found)
    if len(pattern) != source.layers or set(pattern) - set(_LETTERS):
        raise source.read.error("hybrid_override_pattern", f"one of {' '.join(_LETTERS)} for each of the {source.layers} layers")
    return tuple(_LETTERS[letter] for letter in pattern)


def _mamba(source: Source) -> tuple[Iterator[Weight], Cache]:
    read, at, hidden = source.read, "mixer", source.hidden
    heads, dim, state = read.number("mamba_num_heads"), read.number("mamba_head_dim"), read.number("ssm_state_size")
    inner, kernel = heads * dim, read.number("conv_kernel", 4)
    convolved = inner + 2 * read.number("n_groups", 8) * state
    rows = inner + convolved + heads

    def weights() -> Iterator[Weight]:
        projections = (m.linear(f"{at}.in_proj", "attention", rows, hidden, "column"),)
        yield from m.biased(iter(projections), read.flag("use_bias", False))
        yield m.plain(f"{at}.conv1d", convolved, kernel, "column")
        if read.flag("use_conv_bias", True):
            yield m.vector(f"{at}.conv1d.bias", convolved, "column")
        yield from (m.vector(f"{at}.{name}", heads, "column") for name in ("dt_bias", "A_log", "D"))
        yield m.vector(f"{at}.norm", inner, "column")
        out = (m.linear(f"{at}.out_proj", "attention", hidden, inner, "row"),)
        yield from m.biased(iter(out), read.flag("use_bias", False))

    return weights(), m.linear_state(heads, inner * state, convolved, kernel)


def _ungated(at: str, kind: Kind, hidden: int, ffn: int, copies: int = 1) -> Iterator[Weight]:
    yield m.linear(f"{at}.up_proj", kind, ffn, hidden, "column", copies)
    yield m.linear(f"{at}.down_proj", kind, hidden, ffn, "row", copies)


def _nemotron_experts(draft: Draft, layers: list[int]) -> Moe:
    """Add experts without gates, which may work on fewer channels than the residual stream has."""
    source, read, at = draft.source, draft.source.read, "mixer"
    count, width = read.number("n_routed_experts"), read.number("moe_intermediate_size")
    latent, shared = read.optional("moe_latent_size"), read.number("moe_shared_expert_intermediate_size")
    router = Weight(f"{at}.gate", "router", count, source.hidden, "replicated")
    draft.add((router, Weight(f"{at}.gate.e_score_correction_bias", "router", count, 1, "replicated")), layers)
    draft.add(_ungated(f"{at}.experts.*", "expert", latent or source.hidden, width, count), layers)
    bias = read.flag("mlp_bias", False)
    draft.add(m.biased(_ungated(f"{at}.shared_experts", "shared-expert", source.hidden, shared), bias), layers)
    if latent is not None:
        into = m.linear(f"{at}.fc1_latent_proj", "mlp", latent, source.hidden, "replicated")
        back = m.linear(f"{at}.fc2_latent_proj", "mlp", source.hidden, latent, "replicated")
        draft.add(m.biased(iter((into, back)), bias), layers)
    chosen = read.number("num_experts_per_tok")
    return Moe(experts=count, experts_per_token=chosen, expert_ffn=width, shared_expert_ffn=shared)
