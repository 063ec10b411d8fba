"""ERNIE 4.5 with experts: from one layer on, every so manieth layer has them, and shared ones."""

from lprl_api.model.layouts import mechanisms as m
from lprl_api.model.layouts.source import NORMS, Draft, Source
from lprl_api.model.model_shape import ModelShape, Moe


def ernie_moe(source: Source) -> ModelShape:
    """Return the shape of ERNIE 4.5 with experts."""
    draft, read, hidden = Draft(source), source.read, source.hidden
    bias, dim, kv_heads = read.flag("use_bias", False), source.head_dim, source.kv_heads
    attention = m.attention(hidden, source.heads, kv_heads, dim, bias=bias, out_bias=bias)
    draft.add(attention, cache=m.keys_and_values(kv_heads, dim))
    draft.add(m.norms(hidden, *NORMS))
    first, every = read.number("moe_layer_start_index", 1, least=0), read.number("moe_layer_interval", 1)
    last = source.text.get("moe_layer_end_index", -1)
    last = last if isinstance(last, int) and 0 <= last < source.layers else source.layers - 1
    sparse = [layer for layer in range(first, last + 1) if (layer + 1) % every == 0]
    dense, ffn = [layer for layer in range(source.layers) if layer not in sparse], read.number("intermediate_size")
    draft.add(m.biased(m.gated_mlp("mlp", "mlp", hidden, ffn), bias), dense)
    count, width = read.number("moe_num_experts", 64), read.number("moe_intermediate_size", 1536)
    draft.add(m.experts(hidden, count, width, correction=True), sparse)
    shared = read.number("moe_num_shared_experts", 2, least=0) * width
    if shared:
        draft.add(m.biased(m.gated_mlp("mlp.shared_experts", "shared-expert", hidden, shared), bias), sparse)
    if bias:
        draft.outside.append(m.vector("lm_head.bias", read.number("vocab_size")))
    moe = Moe(experts=count, experts_per_token=read.number("moe_k", 6), expert_ffn=width, shared_expert_ffn=shared, dense_layers=len(dense))
    return draft.shape(ffn=ffn, head_dim=dim, kv_heads=kv_heads, moe=moe, tied=True)
