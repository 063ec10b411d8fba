"""Families with latent attention: GLM-4.7-Flash, GLM-5, Mistral 4, DeepSeek-V2, V3.2 and V4."""

from lprl_api.model.layouts import mechanisms as m
from lprl_api.model.layouts.source import NORMS, Draft, Source
from lprl_api.model.model_shape import Cache, Mla, ModelShape, Moe
from lprl_api.model.weight import Weight

COMPRESSED, HEAVILY = "compressed_sparse_attention", "heavily_compressed_attention"
_RATIOS = {0: "sliding_attention", 4: COMPRESSED, 128: HEAVILY}


def _mla(source: Source) -> Mla:
    read = source.read
    return Mla(
        q_lora_rank=read.optional("q_lora_rank"),
        kv_lora_rank=read.number("kv_lora_rank"),
        qk_nope_head_dim=read.number("qk_nope_head_dim"),
        qk_rope_head_dim=read.number("qk_rope_head_dim"),
        v_head_dim=read.number("v_head_dim"),
    )


def _latent(draft: Draft, mla: Mla) -> None:
    source = draft.source
    weights = m.latent_attention(source.hidden, source.heads, mla, bias=source.read.flag("attention_bias", False))
    draft.add(weights, cache=Cache(channels=mla.kv_lora_rank + mla.qk_rope_head_dim))
    draft.add(m.norms(source.hidden, *NORMS))


def _experts(draft: Draft, dense: list[int], sparse: list[int], *, correction: bool, bias: bool = False) -> Moe:
    source, read = draft.source, draft.source.read
    count, width = read.number("n_routed_experts"), read.number("moe_intermediate_size")
    shared = read.number("n_shared_experts", 0, least=0) * width
    if dense:
        draft.add(m.biased(m.gated_mlp("mlp", "mlp", source.hidden, read.number("intermediate_size")), bias), dense)
    draft.add(m.experts(source.hidden, count, width, correction=correction), sparse)
    if shared:
        weights = m.gated_mlp("mlp.shared_experts", "shared-expert", source.hidden, shared)
        draft.add(m.biased(weights, bias), sparse)
    chosen = read.number("num_experts_per_tok")
    return Moe(experts=count, experts_per_token=chosen, expert_ffn=width, shared_expert_ffn=shared, dense_layers=len(dense))


def latent(source: Source) -> ModelShape:
    """Return the shape of a model with latent attention in every layer: GLM-4.7-Flash, DeepSeek-V2, V3.2 and, with an indexer, GLM-5."""
    draft, mla = Draft(source), _mla(source)
    _latent(draft, mla)
    if source.read.has("index_head_dim") and mla.q_lora_rank is not None:
        _indexers(draft, mla.q_lora_rank)
    dense, sparse = _dense_and_sparse(source)
    model_type = source.text.get("model_type")
    bias = model_type == "deepseek_v2" and source.read.flag("mlp_bias", False)
    moe = _experts(draft, dense, sparse, correction=model_type not in ("deepseek_v2", "mistral4"), bias=bias)
    mtp = source.read.number("num_nextn_predict_layers", 0, least=0)
    head = mla.qk_nope_head_dim + mla.qk_rope_head_dim
    return draft.shape(ffn=source.read.number("intermediate_size"), head_dim=head, moe=moe, mla=mla, mtp=mtp)


def _dense_and_sparse(source: Source) -> tuple[list[int], list[int]]:
    if source.text.get("mlp_layer_types") is None:
        return source.dense_first()
    kinds = source.kinds("mlp_layer_types", (), ("dense", "sparse"))
    return [n for n, kind in enumerate(kinds) if kind == "dense"], [n for n, kind in enumerate(kinds) if kind != "dense"]


def _indexers(draft: Draft, q_rank: int) -> None:
    """Add the indexer of the layers that have one; the others take the choice of the one before."""
    source, read = draft.source, draft.source.read
    kinds = source.kinds("indexer_types", _scheduled(source), ("full", "shared"))
    layers = [layer for layer, kind in enumerate(kinds) if kind != "shared"]
    heads, dim = read.number("index_n_heads"), read.number("index_head_dim")
    draft.add(m.indexer(source.hidden, q_rank, heads, dim), layers, m.indexer_keys(dim))


def _scheduled(source: Source) -> list[str]:
    """Return which layers have an indexer where config.json lists none, as the class does: by pattern, else by frequency."""
    pattern = source.text.get("index_topk_pattern")
    if pattern is not None:
        return ["shared" if letter in ("S", "shared") else "full" for letter in pattern]
    every = source.read.number("index_topk_freq", 1)
    offset = source.read.number("index_skip_topk_offset", 2, least=0)
    return ["full" if max(layer - offset + 1, 0) % every == 0 else "shared" for layer in range(source.layers)]


def deepseek_v4(source: Source) -> ModelShape:
    """Return the shape of DeepSeek-V4: one shared head of keys, compressed by 4 or by 128 tokens, and streams that are mixed.

    The integers that the first layers choose experts by are no weights.
    """
    draft, read = Draft(source), source.read
    head_dim, streams = read.number("head_dim"), read.number("hc_mult", 4)
    _v4_attention(draft, head_dim)
    mixed = (2 + streams) * streams
    for name in ("attn_hc", "ffn_hc"):
        draft.add((m.plain(f"{name}.fn", mixed, streams * source.hidden), m.vector(f"{name}.base", mixed), m.vector(f"{name}.scale", 3)))
    hashed = min(read.number("num_hash_layers", 3, least=0), source.layers)
    moe = _experts(draft, [], list(range(source.layers)), correction=False, bias=read.flag("mlp_bias", False))
    draft.add((m.vector("mlp.gate.e_score_correction_bias", moe.experts),), range(hashed, source.layers))
    draft.outside += [m.plain("model.hc_head.hc_fn", streams, streams * source.hidden), m.vector("model.hc_head.hc_base", streams)]
    draft.outside.append(m.vector("model.hc_head.hc_scale", 1))
    mtp = read.number("num_nextn_predict_layers", 0, least=0)
    return draft.shape(ffn=moe.expert_ffn, head_dim=head_dim, kv_heads=1, moe=moe, mtp=mtp)


def _v4_attention(draft: Draft, dim: int) -> None:
    source, read, at = draft.source, draft.source.read, "self_attn"
    hidden, heads = source.hidden, source.heads
    rank, groups, out = read.number("q_lora_rank"), read.number("o_groups", 8), read.number("o_lora_rank")
    weights = (
        m.linear(f"{at}.q_a_proj", "attention", rank, hidden, "replicated"),
        m.vector(f"{at}.q_a_norm", rank),
        m.linear(f"{at}.q_b_proj", "attention", heads * dim, rank, "column"),
        m.linear(f"{at}.kv_proj", "attention", dim, hidden, "replicated"),
        m.vector(f"{at}.kv_norm", dim),
        m.linear(f"{at}.o_a_proj", "attention", groups * out, heads * dim // groups, "column"),
        m.linear(f"{at}.o_b_proj", "attention", hidden, groups * out, "row"),
        m.vector(f"{at}.sinks", heads),
    )
    draft.add(weights, cache=Cache(channels=dim, window=read.number("sliding_window", 128)))
    draft.add(m.norms(hidden, *NORMS))
    kinds = source.kinds("layer_types", _compressions(source), _RATIOS.values())
    for kind, every, wide in ((COMPRESSED, 4, 2), (HEAVILY, 128, 1)):
        layers = [layer for layer, found in enumerate(kinds) if found == kind]
        draft.add(_compressor(f"{at}.compressor", hidden, dim, every, wide), layers, Cache(channels=dim, every=every))
    sparse = [layer for layer, found in enumerate(kinds) if found == COMPRESSED]
    index, picked = read.number("index_head_dim", 128), read.number("index_n_heads", 64)
    deeper = f"{at}.compressor.indexer"
    draft.add(_compressor(deeper, hidden, index, 4, 2), sparse, Cache(channels=index, every=4))
    queries = m.linear(f"{deeper}.q_b_proj", "attention", picked * index, rank, "replicated")
    draft.add((queries, m.plain(f"{deeper}.scorer.weights_proj", picked, hidden)), sparse)


def _compressor(at: str, hidden: int, dim: int, every: int, wide: int) -> tuple[Weight, ...]:
    """Return what makes one key of `every` tokens; `wide`: how many of its channels each token gives."""
    return (
        m.linear(f"{at}.kv_proj", "attention", wide * dim, hidden, "replicated"),
        m.linear(f"{at}.gate_proj", "attention", wide * dim, hidden, "replicated"),
        m.plain(f"{at}.position_bias", every, wide * dim),
        m.vector(f"{at}.kv_norm", dim),
    )


def _compressions(source: Source) -> list[str]:
    """Return the kind of each layer: of compress_ratios, else as the class interleaves them."""
    ratios = source.text.get("compress_ratios")
    if isinstance(ratios, list | tuple):
        if any(ratio not in _RATIOS for ratio in ratios):
            raise source.read.error("compress_ratios", f"numbers of {', '.join(map(str, _RATIOS))}")
        return [_RATIOS[ratio] for ratio in ratios]
    return [HEAVILY if layer < 2 or layer % 2 == 0 else COMPRESSED for layer in range(source.layers)]
