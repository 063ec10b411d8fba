"""Families whose layers see windows, or differ among themselves: gpt-oss, Llama 4, Gemma 4, MiMo-V2, Step-3.7, MiniMax-M3."""

from collections.abc import Iterable, Mapping

from lprl_api.model.config_reader import Reader
from lprl_api.model.layouts import mechanisms as m
from lprl_api.model.layouts.decoders import FOUR_NORMS
from lprl_api.model.layouts.source import FULL, NORMS, SLIDING, Draft, Source
from lprl_api.model.model_shape import Cache, ModelShape, Moe
from lprl_api.model.weight import Weight

DENSE_OR_SPARSE = ("dense", "sparse")


def _of(kinds: Iterable[str], kind: str) -> list[int]:
    return [layer for layer, found in enumerate(kinds) if found == kind]


def gpt_oss(source: Source) -> ModelShape:
    """Return the shape of gpt-oss: every other layer sees a window, heads have sinks, experts have biases."""
    draft, read, hidden = Draft(source), source.read, source.hidden
    bias, dim, kv_heads = read.flag("attention_bias", True), read.number("head_dim", 64), source.kv_heads
    draft.add(m.attention(hidden, source.heads, kv_heads, dim, bias=bias, out_bias=bias))
    draft.add((m.vector("self_attn.sinks", source.heads, "column"), *m.norms(hidden, *NORMS)))
    kinds = source.kinds("layer_types", [SLIDING if (layer + 1) % 2 else FULL for layer in range(source.layers)])
    draft.add((), _of(kinds, SLIDING), m.keys_and_values(kv_heads, dim, window=read.number("sliding_window", 128)))
    draft.add((), _of(kinds, FULL), m.keys_and_values(kv_heads, dim))
    count, ffn = read.number("num_local_experts"), read.number("intermediate_size")
    draft.add(m.experts(hidden, count, ffn))
    biases = (("gate_up_proj_bias", 2 * ffn), ("down_proj_bias", hidden))
    draft.add((m.vector("mlp.gate.bias", count), *(m.plain(f"mlp.experts.{name}", count, width) for name, width in biases)))
    moe = Moe(experts=count, experts_per_token=read.number("num_experts_per_tok", 4), expert_ffn=ffn)
    return draft.shape(ffn=ffn, head_dim=dim, moe=moe)


def llama4(source: Source) -> ModelShape:
    """Return the shape of Llama 4: three of four layers attend inside chunks; every so manieth layer has experts."""
    draft, read, hidden = Draft(source), source.read, source.hidden
    bias, dim, kv_heads = read.flag("attention_bias", False), read.number("head_dim", 128), source.kv_heads
    draft.add(m.attention(hidden, source.heads, kv_heads, dim, bias=bias, out_bias=bias))
    draft.add(m.norms(hidden, *NORMS))
    interval = read.number("no_rope_layer_interval", 4)
    default = [FULL if (layer + 1) % interval == 0 else "chunked_attention" for layer in range(source.layers)]
    kinds, chunk = source.kinds("layer_types", default, ("chunked_attention", FULL)), read.number("attention_chunk_size", 8192)
    chunked = _of(kinds, "chunked_attention")
    draft.add((), chunked, m.keys_and_values(kv_heads, dim, window=chunk))
    draft.add((), [layer for layer in range(source.layers) if layer not in chunked], m.keys_and_values(kv_heads, dim))
    step, ffn = read.number("interleave_moe_layer_step", 1), read.number("intermediate_size")
    listed = source.text.get("moe_layers")
    sparse = list(range(step - 1, source.layers, step)) if listed is None else [layer for layer in range(source.layers) if layer in listed]
    dense = [layer for layer in range(source.layers) if layer not in sparse]
    wide, count = read.number("intermediate_size_mlp", 16384), read.number("num_local_experts")
    draft.add(m.gated_mlp("feed_forward", "mlp", hidden, wide), dense)
    draft.add(m.experts(hidden, count, ffn, at="feed_forward"), sparse)
    draft.add(m.gated_mlp("feed_forward.shared_expert", "shared-expert", hidden, ffn), sparse)
    moe = Moe(experts=count, experts_per_token=read.number("num_experts_per_tok", 1), expert_ffn=ffn, shared_expert_ffn=ffn)
    return draft.shape(ffn=wide, head_dim=dim, moe=moe)


def gemma4(source: Source) -> ModelShape:
    """Return the shape of Gemma 4: full layers have wider, fewer heads, whose keys may be their values; late layers may share caches."""
    draft, read, hidden = Draft(source), source.read, source.hidden
    kinds = source.kinds("layer_types", [FULL if (layer + 1) % 6 == 0 else SLIDING for layer in range(source.layers)])
    kinds = (*kinds[:-1], FULL)  # as the class forces it
    alone = source.layers - read.number("num_kv_shared_layers", 0, least=0)
    same = read.flag("attention_k_eq_v", False)
    dim, kv_heads = read.number("head_dim", 256), source.kv_heads
    wide, fewer = _gemma4_full(source, kinds.index(FULL), same)
    window = read.number("sliding_window", 512)
    for kind, size, keys, equal, bound in ((SLIDING, dim, kv_heads, False, window), (FULL, wide, fewer, same, None)):
        layers = _of(kinds, kind)
        _gemma4_attention(draft, layers, alone, size, keys, equal, m.keys_and_values(keys, size, window=bound))
    draft.add((*m.norms(hidden, *FOUR_NORMS), m.vector("layer_scalar", 1)))
    ffn, twice = read.number("intermediate_size"), 2 if read.flag("use_double_wide_mlp", False) else 1
    draft.add(m.gated_mlp("mlp", "mlp", hidden, ffn), range(alone))
    draft.add(m.gated_mlp("mlp", "mlp", hidden, ffn * twice), range(alone, source.layers))
    _per_layer_inputs(draft)
    moe = _gemma4_experts(draft) if read.flag("enable_moe_block", False) else None
    return draft.shape(ffn=ffn, head_dim=dim, kv_heads=kv_heads, moe=moe, tied=True)


def _gemma4_full(source: Source, layer: int, same: bool) -> tuple[int, int]:
    """Return channels of a head and key heads of full layers, of which `layer` is one: published by two keys, saved again by layer."""
    read, listed = source.read, source.text.get("per_layer_config")
    if listed is None:
        return read.number("global_head_dim", 512), read.number("num_global_key_value_heads", source.kv_heads) if same else source.kv_heads
    said = listed.get(str(layer), {}) if isinstance(listed, Mapping) else None
    if not isinstance(said, Mapping):
        raise read.error("per_layer_config", "an object with an object for each layer that differs")
    own = Reader(said, f"{read.prefix}per_layer_config.{layer}.")
    return own.number("head_dim", read.number("head_dim", 256)), own.number("num_key_value_heads", source.kv_heads)


def _gemma4_attention(draft: Draft, layers: list[int], alone: int, dim: int, kv_heads: int, equal: bool, cache: Cache) -> None:
    source, at = draft.source, "self_attn"
    bias = source.read.flag("attention_bias", False)
    weights = [w for w in m.attention(source.hidden, source.heads, kv_heads, dim, bias=bias, out_bias=bias)]
    shared = (f"{at}.k_proj", f"{at}.v_proj")
    queries = [w for w in weights if not w.module.startswith(shared)]
    keys = [w for w in weights if w.module.startswith(shared[: 1 if equal else 2])]
    draft.add((*queries, m.vector(f"{at}.q_norm", dim)), layers)
    draft.add((*keys, m.vector(f"{at}.k_norm", dim)), [layer for layer in layers if layer < alone], cache)


def _per_layer_inputs(draft: Draft) -> None:
    """Add an embedding of each token for each layer, where there is one (E2B, E4B)."""
    source, read = draft.source, draft.source.read
    width = read.number("hidden_size_per_layer_input", 256, least=0)
    if not width:
        return
    rows, whole = read.number("vocab_size_per_layer_input", 262144), source.layers * width
    draft.outside += [Weight("model.embed_tokens_per_layer", "embedding", rows, whole, "vocab")]
    draft.outside += [m.plain("model.per_layer_model_projection", whole, source.hidden)]
    draft.outside += [m.vector("model.per_layer_projection_norm", width)]
    draft.add((m.plain("per_layer_input_gate", width, source.hidden), m.plain("per_layer_projection", source.hidden, width)))
    draft.add(m.norms(source.hidden, "post_per_layer_input_norm"))


def _gemma4_experts(draft: Draft) -> Moe:
    read, hidden = draft.source.read, draft.source.hidden
    count, ffn = read.number("num_experts"), read.number("moe_intermediate_size")
    router = (Weight("router.proj", "router", count, hidden, "replicated"), m.vector("router.scale", hidden))
    draft.add((*router, m.vector("router.per_expert_scale", count)))
    draft.add(m.gated_mlp("experts.*", "expert", hidden, ffn, count))
    more = ("post_feedforward_layernorm_1", "post_feedforward_layernorm_2", "pre_feedforward_layernorm_2")
    draft.add(m.norms(hidden, *more))
    return Moe(experts=count, experts_per_token=read.number("top_k_experts"), expert_ffn=ffn)


def mimo_v2(source: Source) -> ModelShape:
    """Return the shape of MiMo-V2: windowed layers have twice the key heads, and sinks; values are narrower than keys."""
    draft, read, hidden = Draft(source), source.read, source.hidden
    default = [SLIDING if found else FULL for found in source.text.get("hybrid_layer_pattern") or ()]
    kinds = source.kinds("layer_types", default)
    dim, value = read.number("head_dim", 192), read.number("v_head_dim", 128)
    window, bias = read.number("sliding_window", 128), read.flag("attention_bias", False)
    for kind, keys, bound in ((FULL, source.kv_heads, None), (SLIDING, 2 * source.kv_heads, window)):
        weights = m.attention(hidden, source.heads, keys, dim, value_dim=value, bias=bias)
        draft.add(weights, _of(kinds, kind), m.keys_and_values(keys, dim, value, bound))
    draft.add((m.vector("self_attn.sinks", source.heads, "column"),), _of(kinds, SLIDING))
    draft.add(m.norms(hidden, *NORMS))
    listed = ["sparse" if found else "dense" for found in source.text.get("moe_layer_freq") or ()]
    mlps, ffn = source.kinds("mlp_layer_types", listed, DENSE_OR_SPARSE), read.number("intermediate_size")
    draft.add(m.gated_mlp("mlp", "mlp", hidden, ffn), _of(mlps, "dense"))
    count, width = read.number("n_routed_experts"), read.number("moe_intermediate_size")
    draft.add(m.experts(hidden, count, width, correction=True), _of(mlps, "sparse"))
    moe = Moe(experts=count, experts_per_token=read.number("num_experts_per_tok"), expert_ffn=width, dense_layers=mlps.count("dense"))
    return draft.shape(ffn=ffn, head_dim=dim, moe=moe)


def step3p7(source: Source) -> ModelShape:
    """Return the shape of Step-3.7: three of four layers see a window, heads are gated one by one."""
    draft, read, hidden = Draft(source), source.read, source.hidden
    kinds = source.kinds("layer_types", [FULL] * source.layers)
    other = source.text.get("attention_other_setting")
    heads = {FULL: source.heads, SLIDING: read.number("num_sliding_attention_heads", _other_heads(other, source.heads))}
    dim, window = read.number("head_dim", 128), read.optional("sliding_window")
    kv_heads = read.number("num_key_value_heads", read.number("num_attention_groups", 8))
    bias, mlp_bias = read.flag("attention_bias", False), read.flag("mlp_bias", False)
    for kind, bound in ((FULL, None), (SLIDING, window)):
        weights = m.attention(hidden, heads[kind], kv_heads, dim, bias=bias, out_bias=bias)
        gate = m.plain("self_attn.g_proj", heads[kind], hidden, "column")
        draft.add((*weights, gate), _of(kinds, kind), m.keys_and_values(kv_heads, dim, window=bound))
    draft.add((m.vector("self_attn.q_norm", dim), m.vector("self_attn.k_norm", dim), *m.norms(hidden, *NORMS)))
    ffn, mlps = read.number("intermediate_size"), source.kinds("mlp_layer_types", _step_mlps(source), DENSE_OR_SPARSE)
    count = read.number("n_routed_experts", read.number("moe_num_experts", read.number("num_experts", 288)))
    width = read.number("moe_intermediate_size", 1280)
    shared = read.number("share_expert_dim", read.number("share_expert_dims", 1280))
    draft.add(m.biased(m.gated_mlp("mlp", "mlp", hidden, ffn), mlp_bias), _of(mlps, "dense"))
    draft.add(m.experts(hidden, count, width, correction=True), _of(mlps, "sparse"))
    weights = m.gated_mlp("mlp.shared_experts", "shared-expert", hidden, shared)
    draft.add(m.biased(weights, mlp_bias), _of(mlps, "sparse"))
    chosen = read.number("num_experts_per_tok", read.number("moe_top_k", 8))
    dense = mlps.count("dense")
    moe = Moe(experts=count, experts_per_token=chosen, expert_ffn=width, shared_expert_ffn=shared, dense_layers=dense)
    mtp = read.number("num_nextn_predict_layers", 0, least=0)
    return draft.shape(ffn=ffn, head_dim=dim, kv_heads=kv_heads, moe=moe, mtp=mtp)


def _other_heads(setting: object, heads: int) -> int:
    found = setting.get("num_attention_heads") if isinstance(setting, dict) else None
    return found if isinstance(found, int) else heads


def _step_mlps(source: Source) -> list[str]:
    """Return dense or sparse by layer where no list says it: `moe_layers_enum`, else all but the first."""
    listed = source.text.get("moe_layers_enum")
    if listed is None:
        dense = source.read.number("first_k_dense_replace", 3, least=0)
        return ["dense" if layer < dense else "sparse" for layer in range(source.layers)]
    sparse = {int(item) for item in (listed.split(",") if isinstance(listed, str) else listed) if str(item).strip().isdigit()}
    return ["sparse" if layer in sparse else "dense" for layer in range(source.layers)]


def minimax_m3(source: Source) -> ModelShape:
    """Return the shape of MiniMax-M3: most layers pick blocks of tokens by an indexer; MLPs are packed."""
    draft, read, hidden = Draft(source), source.read, source.hidden
    dim, kv_heads = read.number("head_dim", 128), source.kv_heads
    draft.add(m.attention(hidden, source.heads, kv_heads, dim), cache=m.keys_and_values(kv_heads, dim))
    draft.add((m.vector("self_attn.q_norm", dim), m.vector("self_attn.k_norm", dim), *m.norms(hidden, *NORMS)))
    found = source.text.get("sparse_attention_config")
    said = found if isinstance(found, dict) else {}
    picks = ["minimax_m3_sparse" if on else FULL for on in said.get("sparse_attention_freq") or [0] * source.layers]
    sparse = _of(source.kinds("layer_types", picks, ("minimax_m3_sparse", FULL)), "minimax_m3_sparse")
    heads = read.number("index_n_heads", int(said.get("sparse_num_index_heads", 4)))
    index, at = read.number("index_head_dim", int(said.get("sparse_index_dim", 128))), "self_attn.indexer"
    queries = m.linear(f"{at}.q_proj", "attention", heads * index, hidden, "replicated")
    keys = m.linear(f"{at}.k_proj", "attention", index, hidden, "replicated")
    draft.add((queries, keys, m.vector(f"{at}.q_norm", index), m.vector(f"{at}.k_norm", index)), sparse, Cache(channels=index))
    listed = ["sparse" if on else "dense" for on in source.text.get("moe_layer_freq") or [1] * source.layers]
    mlps, wide = source.kinds("mlp_layer_types", listed, DENSE_OR_SPARSE), read.number("dense_intermediate_size", 12288)
    count, width = read.number("num_local_experts"), read.number("intermediate_size")
    shared = read.number("shared_intermediate_size", 3072)
    draft.add(m.gated_mlp("mlp", "mlp", hidden, wide), _of(mlps, "dense"))
    draft.add(m.experts(hidden, count, width, correction=True), _of(mlps, "sparse"))
    draft.add(m.gated_mlp("mlp.shared_experts", "shared-expert", hidden, shared), _of(mlps, "sparse"))
    chosen, dense = read.number("num_experts_per_tok"), mlps.count("dense")
    moe = Moe(experts=count, experts_per_token=chosen, expert_ffn=width, shared_expert_ffn=shared, dense_layers=dense)
    return draft.shape(ffn=wide, head_dim=dim, moe=moe)
