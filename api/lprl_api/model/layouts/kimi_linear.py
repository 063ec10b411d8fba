"""Kimi Linear: latent attention in every fourth layer, delta attention whose decay is by channel in the others."""

from collections.abc import Iterator

from lprl_api.model.config_reader import Reader
from lprl_api.model.layouts import mechanisms as m
from lprl_api.model.layouts.source import FULL, NORMS, Draft, Source
from lprl_api.model.model_shape import Cache, Mla, ModelShape, Moe
from lprl_api.model.weight import Weight

LINEAR = "linear_attention"
NEWER = ("routed_expert_hidden_size", "mla_use_output_gate", "attn_res_block_size")
"""Of Kimi-K3, whose layers have parts that nobody here knows the shapes of."""


def kimi_linear(source: Source) -> ModelShape:
    """Return the shape of Kimi Linear. Raises UserError naming the key of a later model of its name."""
    draft, read, hidden = Draft(source), source.read, source.hidden
    for key in NEWER:
        if read.has(key):
            raise read.error(key, "no such key: of models with it no weights are counted")
    mla = Mla(
        q_lora_rank=read.optional("q_lora_rank"),
        kv_lora_rank=read.number("kv_lora_rank", 512),
        qk_nope_head_dim=read.number("qk_nope_head_dim", 128),
        qk_rope_head_dim=read.number("qk_rope_head_dim", 64),
        v_head_dim=read.number("v_head_dim", 128),
    )
    kinds = source.kinds("layer_types", _kinds(source), (LINEAR, FULL))
    full, linear = [[layer for layer, kind in enumerate(kinds) if kind == wanted] for wanted in (FULL, LINEAR)]
    latent = m.latent_attention(hidden, source.heads, mla, bias=read.flag("attention_bias", False))
    draft.add(latent, full, Cache(channels=mla.kv_lora_rank + mla.qk_rope_head_dim))
    weights, state = _delta(source)
    draft.add(weights, linear, state)
    draft.add(m.norms(hidden, *NORMS))
    head = mla.qk_nope_head_dim + mla.qk_rope_head_dim
    return draft.shape(ffn=read.number("intermediate_size"), head_dim=head, moe=_mlps(draft), mla=mla)


def _attention_config(source: Source) -> Reader:
    said = source.text.get("linear_attn_config")
    return Reader(said if isinstance(said, dict) else {}, f"{source.read.prefix}linear_attn_config.")


def _kinds(source: Source) -> list[str]:
    """Return the kind of each layer where no list says it: of the published lists, which count from one, else every fourth."""
    listed = _attention_config(source).values.get("full_attn_layers")
    if isinstance(listed, list):
        return [FULL if layer + 1 in listed else LINEAR for layer in range(source.layers)]
    return [FULL if layer and layer % 4 == 0 else LINEAR for layer in range(source.layers)]


def _delta(source: Source) -> tuple[Iterator[Weight], Cache]:
    nested, read, at, hidden = _attention_config(source), source.read, "self_attn", source.hidden
    dim = nested.number("head_dim", read.number("linear_head_dim", 128))
    heads = nested.number("num_heads", read.number("linear_num_heads", 32))
    kernel = nested.number("short_conv_kernel_size", read.number("linear_conv_kernel_dim", 4))
    wide = heads * dim

    def weights() -> Iterator[Weight]:
        for name in ("q_proj", "k_proj", "v_proj"):
            yield m.linear(f"{at}.{name}", "attention", wide, hidden, "column")
            yield m.plain(f"{at}.{name[0]}_conv1d", wide, kernel, "column")
        for name in ("f", "g"):
            yield m.linear(f"{at}.{name}_a_proj", "attention", dim, hidden, "replicated")
            yield m.linear(f"{at}.{name}_b_proj", "attention", wide, dim, "column")
        yield m.linear(f"{at}.b_proj", "attention", heads, hidden, "column")
        yield from (m.vector(f"{at}.dt_bias", wide, "column"), m.vector(f"{at}.A_log", heads, "column"), m.vector(f"{at}.o_norm", dim))
        yield m.linear(f"{at}.o_proj", "attention", hidden, wide, "row")

    return weights(), m.linear_state(heads, heads * dim * dim, 3 * wide, kernel)


def _mlps(draft: Draft) -> Moe:
    source, read = draft.source, draft.source.read
    dense = read.number("first_k_dense_replace", 1, least=0)
    kinds = source.kinds("mlp_layer_types", ["dense" if n < dense else "sparse" for n in range(source.layers)], ("dense", "sparse"))
    few, many = [[layer for layer, kind in enumerate(kinds) if kind == wanted] for wanted in ("dense", "sparse")]
    count = read.number("num_experts", read.number("num_local_experts", 256))
    width, shared = read.number("moe_intermediate_size"), read.number("num_shared_experts", read.number("n_shared_experts", 1))
    draft.add(m.gated_mlp("mlp", "mlp", source.hidden, read.number("intermediate_size")), few)
    draft.add(m.experts(source.hidden, count, width, correction=True), many)
    draft.add(m.gated_mlp("mlp.shared_experts", "shared-expert", source.hidden, shared * width), many)
    chosen = read.number("num_experts_per_token", read.number("num_experts_per_tok", 8))
    return Moe(experts=count, experts_per_token=chosen, expert_ffn=width, shared_expert_ffn=shared * width, dense_layers=len(few))
