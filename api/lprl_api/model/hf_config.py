"""A Hugging Face config.json -> ModelShape: pure, and every refusal names the key.

Supported: Llama, Qwen2, Qwen3, Qwen3-MoE and the DeepSeek-V3 family (Moonlight, Kimi-K2, and multimodal models that keep the
language model in `text_config`).
"""

from collections.abc import Mapping
from typing import Any, Literal

from lprl_api.errors import UserError
from lprl_api.model.config_reader import Reader
from lprl_api.model.hf_computed import check_computed
from lprl_api.model.model_shape import Mla, ModelShape, Moe

Family = Literal["llama", "qwen2", "qwen3", "qwen3-moe", "deepseek-v3"]
Dtype = Literal["bfloat16", "float16", "float32"]

FAMILIES: dict[str, Family] = {
    "llama": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "qwen3_moe": "qwen3-moe",
    "deepseek_v3": "deepseek-v3",
    "kimi_k2": "deepseek-v3",
}
"""`model_type` of a config.json -> family."""
ARCHITECTURES: dict[Family, str] = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "qwen3-moe": "Qwen3MoeForCausalLM",
    "deepseek-v3": "DeepseekV3ForCausalLM",
}
_MISSING_KEYS: Mapping[Family, Mapping[str, int]] = {
    "llama": {"max_position_embeddings": 2048},
    "qwen2": {"num_key_value_heads": 32},
    "qwen3": {"num_key_value_heads": 32},
    "qwen3-moe": {"num_key_value_heads": 4},
    "deepseek-v3": {"max_position_embeddings": 4096, "q_lora_rank": 1536, "n_shared_experts": 1, "first_k_dense_replace": 3},
}
"""What transformers' class of a family, and so every engine, takes for a key that is missing. A null key may mean something else."""
_DTYPES: tuple[Dtype, ...] = ("bfloat16", "float16", "float32")


def shape_from_config(config: Mapping[str, Any]) -> ModelShape:
    """Return the shape of a model from its parsed config.json.

    Raises UserError naming the key that is missing, malformed, of no supported architecture, or that means another computation than
    the class of its family.
    """
    text, prefix, outer = language_model(config)
    read = Reader(text, prefix)
    family = _family(read, text)
    check_computed(text, family, read)
    heads, hidden = read.number("num_attention_heads"), read.number("hidden_size")
    mla = _mla(read, text) if family == "deepseek-v3" else None
    ffn = read.number("intermediate_size")
    return ModelShape(
        architecture=_architecture(text, family),
        family=family,
        layers=read.number("num_hidden_layers"),
        hidden=hidden,
        heads=heads,
        kv_heads=heads if mla else _kv_heads(read, text, family, heads),
        head_dim=mla.qk_nope_head_dim + mla.qk_rope_head_dim if mla else _head_dim(read, family, hidden, heads),
        ffn=ffn,
        vocab=read.number("vocab_size"),
        tied_embeddings=is_tied(read, outer),
        qk_norm=family in ("qwen3", "qwen3-moe"),
        attention_bias=family == "qwen2" or read.flag("attention_bias", False),
        mlp_bias=family == "llama" and read.flag("mlp_bias", False),
        max_positions=read.number("max_position_embeddings", _MISSING_KEYS[family].get("max_position_embeddings", 32768)),
        dtype=dtype_of(read, outer),
        moe=_moe(read, text, family),
        mla=mla,
        mtp_layers=read.number("num_nextn_predict_layers", 0, least=0) if family == "deepseek-v3" else 0,
    )


def model_class(config: Mapping[str, Any]) -> str | None:
    """Return the class of a model whose language model is a part of it (`text_config`), None for a plain language model."""
    if config.get("text_config") is None:
        return None
    found, model_type = first_architecture(config), config.get("model_type")
    return found or (model_type if isinstance(model_type, str) else "a model with text_config")


def language_model(config: Mapping[str, Any]) -> tuple[Mapping[str, Any], str, Reader]:
    """Return (configuration of the language model, its key prefix, reader of the outermost configuration)."""
    if not isinstance(config, Mapping):
        raise UserError(f"config.json: got {type(config).__name__}; needs a JSON object")
    outer = Reader(config, "")
    nested = config.get("text_config")
    if nested is None:
        return config, "", outer
    if not isinstance(nested, Mapping):
        raise outer.error("text_config", "an object")
    return nested, "text_config.", outer


def _family(read: Reader, text: Mapping[str, Any]) -> Family:
    """Return the family by model_type; a config without one is known by its architecture."""
    model_type = read.text("model_type")
    if model_type is None:
        by_architecture = {architecture: family for family, architecture in ARCHITECTURES.items()}
        found = by_architecture.get(first_architecture(text) or "")
        if found is not None:
            return found
    elif model_type in FAMILIES:
        return FAMILIES[model_type]
    raise read.error("model_type", f"one of {', '.join(FAMILIES)}")


def first_architecture(text: Mapping[str, Any]) -> str | None:
    """Return the first class config.json names, None for none."""
    listed = text.get("architectures")
    return listed[0] if isinstance(listed, list | tuple) and listed and isinstance(listed[0], str) else None


def _architecture(text: Mapping[str, Any], family: Family) -> str:
    """Return the class that computes the model: a vendor's own name for the same architecture is replaced by ours."""
    found = first_architecture(text)
    return found if found is not None and found in ARCHITECTURES.values() else ARCHITECTURES[family]


def _if_missing(text: Mapping[str, Any], family: Family, key: str, null: int) -> int:
    """Return what stands for a number that is not there: the class's own default for a missing key, `null` for a null one."""
    return null if key in text else _MISSING_KEYS[family].get(key, null)


def _kv_heads(read: Reader, text: Mapping[str, Any], family: Family, heads: int) -> int:
    found = read.number("num_key_value_heads", _if_missing(text, family, "num_key_value_heads", heads))
    if heads % found:
        raise read.error("num_key_value_heads", f"a divisor of num_attention_heads ({heads})")
    return found


def _head_dim(read: Reader, family: Family, hidden: int, heads: int) -> int:
    if read.has("head_dim"):
        return read.number("head_dim")
    if family in ("qwen3",):
        return 128  # transformers' Qwen3Config default; hidden / heads would be wrong for Qwen3-0.6B
    if hidden % heads:
        raise read.error("head_dim", f"a number, because hidden_size {hidden} is no multiple of num_attention_heads {heads}")
    return hidden // heads


def _mla(read: Reader, text: Mapping[str, Any]) -> Mla:
    return Mla(
        q_lora_rank=read.optional("q_lora_rank") if "q_lora_rank" in text else _MISSING_KEYS["deepseek-v3"]["q_lora_rank"],
        kv_lora_rank=read.number("kv_lora_rank"),
        qk_nope_head_dim=read.number("qk_nope_head_dim"),
        qk_rope_head_dim=read.number("qk_rope_head_dim"),
        v_head_dim=read.number("v_head_dim"),
    )


def _moe(read: Reader, text: Mapping[str, Any], family: Family) -> Moe | None:
    if family == "qwen3-moe":
        _refuse_mixed_layers(read, text)
        experts = read.number("num_experts" if read.has("num_experts") else "num_local_experts")
        shared, dense = 0, 0
    elif family == "deepseek-v3":
        if read.number("moe_layer_freq", 1) != 1:
            raise read.error("moe_layer_freq", "1 (every layer after the first dense ones is a mixture of experts)")
        experts = read.number("n_routed_experts")
        shared = read.number("n_shared_experts", _if_missing(text, family, "n_shared_experts", 0), least=0)
        shared *= read.number("moe_intermediate_size")
        dense = read.number("first_k_dense_replace", _if_missing(text, family, "first_k_dense_replace", 0), least=0)
    else:
        return None
    chosen = read.number("num_experts_per_tok")
    if chosen > experts:
        raise read.error("num_experts_per_tok", f"at most the {experts} experts")
    return Moe(
        experts=experts,
        experts_per_token=chosen,
        expert_ffn=read.number("moe_intermediate_size"),
        shared_expert_ffn=shared,
        dense_layers=dense,
    )


def _refuse_mixed_layers(read: Reader, text: Mapping[str, Any]) -> None:
    """Refuse Qwen3-MoE layouts that ModelShape cannot say: dense layers among the sparse ones."""
    if read.number("decoder_sparse_step", 1) != 1:
        raise read.error("decoder_sparse_step", "1 (every layer a mixture of experts)")
    if text.get("mlp_only_layers"):
        raise read.error("mlp_only_layers", "an empty list (every layer a mixture of experts)")


def is_tied(read: Reader, outer: Reader, default: bool = False) -> bool:
    """Return whether the head shares the embedding; of a multimodal model the outer value counts, as in transformers 5."""
    return (outer if outer.has("tie_word_embeddings") else read).flag("tie_word_embeddings", default)


def dtype_of(read: Reader, outer: Reader) -> Dtype:
    """Return the type config.json gives the weights; BF16 where it gives none."""
    for reader in (read, outer):
        for key in ("dtype", "torch_dtype"):
            found = reader.text(key)
            if found is None:
                continue
            name = found.removeprefix("torch.")
            for dtype in _DTYPES:
                if name == dtype:
                    return dtype
            raise reader.error(key, f"one of {', '.join(_DTYPES)}")
    return "bfloat16"
