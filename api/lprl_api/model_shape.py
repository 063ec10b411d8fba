"""ModelShape: what planning, selection and backends need to know of a model, in numbers."""

from typing import Literal

from pydantic import Field

from lprl_api.base import Contract, NonNegativeInt, PositiveInt


class Mla(Contract):
    """Multi-head latent attention (DeepSeek-V2/V3 family), dimensions in channels."""

    q_lora_rank: PositiveInt | None = None
    kv_lora_rank: PositiveInt
    qk_nope_head_dim: PositiveInt
    qk_rope_head_dim: PositiveInt
    v_head_dim: PositiveInt


class Moe(Contract):
    """Routed and shared experts."""

    experts: PositiveInt
    experts_per_token: PositiveInt
    expert_ffn: PositiveInt
    shared_expert_ffn: NonNegativeInt = 0
    """Total intermediate size of the shared experts; 0 when there are none."""
    dense_layers: NonNegativeInt = 0
    """Leading layers with a dense MLP."""


class ModelShape(Contract):
    """Dimensions of a causal language model."""

    architecture: str
    """Hugging Face architecture, such as Qwen3MoeForCausalLM."""
    family: Literal["llama", "qwen2", "qwen3", "qwen3-moe", "deepseek-v3"]
    layers: PositiveInt
    hidden: PositiveInt
    heads: PositiveInt
    kv_heads: PositiveInt
    head_dim: PositiveInt
    ffn: PositiveInt
    """Intermediate size of a dense MLP."""
    vocab: PositiveInt
    tied_embeddings: bool
    qk_norm: bool = False
    attention_bias: bool = False
    max_positions: PositiveInt = 32768
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    moe: Moe | None = None
    mla: Mla | None = None
    mtp_layers: NonNegativeInt = 0
    """Multi-token-prediction layers in the checkpoint."""


class SourceQuantization(Contract):
    """Quantisation found in a source's config.json, normalised; `format` none means high precision."""

    format: Literal["none", "fp8-block", "fp8-channel", "fp8-tensor", "int4-group"] = "none"
    block_size: tuple[PositiveInt, PositiveInt] | None = None
    group_size: PositiveInt | None = None
    symmetric: bool = True
    scope: Literal["routed-experts", "all-linear"] | None = None


class Inspection(Contract):
    """What the inspect Job says of a source; fits a termination message (4096 bytes)."""

    shape: ModelShape
    fingerprint: str = Field(pattern=r"^[0-9a-f]{64}$")
    """sha256 over config, headers, sizes, mtimes, volume identity and content samples of every shard."""
    total_bytes: NonNegativeInt
    tensors: NonNegativeInt
    shards: PositiveInt
    quantization: SourceQuantization = SourceQuantization()
    free_bytes: NonNegativeInt | None = None
    """Free bytes on the conversion volume when inspected."""
