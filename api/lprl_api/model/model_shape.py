"""ModelShape: what planning, selection and backends need to know of a model, in numbers."""

from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from lprl_api.base import Documented, NonNegativeInt, PositiveInt
from lprl_api.checkpoint_ref import CheckpointRef
from lprl_api.model.formats import LowPrecision


class Mla(Documented):
    """Multi-head latent attention (DeepSeek-V2/V3 family), dimensions in channels."""

    q_lora_rank: PositiveInt | None = None
    """Rank of the query projection; none when it is not factored."""
    kv_lora_rank: PositiveInt
    """Rank of the key and value projection."""
    qk_nope_head_dim: PositiveInt
    """Query and key channels of a head without rotary embedding."""
    qk_rope_head_dim: PositiveInt
    """Query and key channels of a head with rotary embedding."""
    v_head_dim: PositiveInt
    """Value channels of a head."""


class Moe(Documented):
    """Routed and shared experts."""

    experts: PositiveInt
    """Routed experts of a layer."""
    experts_per_token: PositiveInt
    """Routed experts a token passes through."""
    expert_ffn: PositiveInt
    """Intermediate size of one routed expert."""
    shared_expert_ffn: NonNegativeInt = 0
    """Total intermediate size of the shared experts; 0 when there are none."""
    dense_layers: NonNegativeInt = 0
    """Leading layers with a dense MLP."""


class Cache(Documented):
    """What one layer keeps of a sequence while an engine generates."""

    heads: NonNegativeInt = 0
    """Heads that tensor ranks share out; 0 where each rank keeps all."""
    channels: NonNegativeInt = 0
    """Elements of a token a head, in the cache's own type."""
    bytes: NonNegativeInt = 0
    """Bytes of a token besides, of a type of their own (an indexer's)."""
    window: PositiveInt | None = None
    """Tokens kept at most."""
    every: PositiveInt = 1
    """Tokens an entry stands for."""
    state: NonNegativeInt = 0
    """Bytes of a sequence whatever its length (linear attention), all heads."""


class Part(Documented):
    """Weights that some decoder layers have, and what these layers keep of a sequence."""

    layers: str
    """Which: `0-2`, `3-39:4` (every fourth), by commas."""
    rows: tuple[str, ...] = ()
    """Its weights (weight_rows.py)."""
    cache: Cache | None = None
    """None where it keeps nothing."""


class Layout(Documented):
    """Every weight of a model whose layers no family of `family` describes."""

    parts: tuple[Part, ...]
    """Of decoder layers."""
    outside: tuple[str, ...] = ()
    """Weights beside embedding, final norm and head."""


class ModelShape(Documented):
    """Dimensions of a causal language model."""

    architecture: str
    """Hugging Face architecture, such as Qwen3MoeForCausalLM."""
    family: Literal["llama", "qwen2", "qwen3", "qwen3-moe", "deepseek-v3", "other"]
    """Layout of its decoder layers; other: `layout` says it, and nothing here trains it."""
    layers: PositiveInt
    """Decoder layers."""
    hidden: PositiveInt
    """Channels of the residual stream."""
    heads: PositiveInt
    """Attention heads."""
    kv_heads: PositiveInt
    """Key and value heads."""
    head_dim: PositiveInt
    """Channels of a head."""
    ffn: PositiveInt
    """Intermediate size of a dense MLP."""
    vocab: PositiveInt
    """Rows of the token embedding."""
    tied_embeddings: bool
    """The output head is the token embedding."""
    qk_norm: bool = False
    """Queries and keys are normalised."""
    attention_bias: bool = False
    """Query, key and value projections have a bias; the output projection too, in families other than qwen2."""
    mlp_bias: bool = False
    """The dense MLP's projections have a bias (llama)."""
    max_positions: PositiveInt = 32768
    """Longest sequence, tokens."""
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    """Type of the weights."""
    moe: Moe | None = None
    """Experts; none for a dense model."""
    mla: Mla | None = None
    """Latent attention; none for a usual one."""
    mtp_layers: NonNegativeInt = 0
    """Multi-token-prediction layers in the checkpoint."""
    tower_parameters: NonNegativeInt | None = 0
    """Weights outside the language model (vision, audio, projectors), which stay as they are; null where nobody counted them."""
    layout: Layout | None = None
    """Weights of the layers of family other."""

    @model_serializer(mode="wrap")
    def _without_defaults(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what most models have nothing of: documents of the other families stay as they were."""
        found: dict[str, Any] = dump(self)
        absent = {"layout"} if self.layout is None else set()
        absent |= {"tower_parameters", "towerParameters"} if self.tower_parameters == 0 else set()
        return {key: value for key, value in found.items() if key not in absent}


class SourceQuantization(Documented):
    """Quantisation found in a source's config.json, normalised; `format` none means high precision."""

    format: Literal["none", LowPrecision, "mxfp4"] = "none"
    """Weight format; none is high precision. mxfp4 is read, and never written."""
    block_size: tuple[PositiveInt, PositiveInt] | None = None
    """Rows and columns of a block (fp8-block)."""
    group_size: PositiveInt | None = None
    """Input channels of a group (int4-group)."""
    symmetric: bool = True
    """Groups have no zero point (int4-group)."""
    scope: Literal["routed-experts", "all-linear"] | None = None
    """Linear layers that are quantised (int4-group)."""


class EarlierRun(Documented):
    """What the run folder holds of an earlier job of this name."""

    uid: str | None = None
    """Its uid; none where its version did not note it."""
    attempt: NonNegativeInt = 0
    """Its newest attempt: this job's numbers begin above it."""
    checkpoint: CheckpointRef | None = None
    """Its newest checkpoint, which this job resumes from."""


class Inspection(Documented):
    """What the inspect Job says of a source; fits a termination message (4096 bytes)."""

    shape: ModelShape
    """Dimensions of the model."""
    fingerprint: str = Field(pattern=r"^[0-9a-f]{64}$")
    """sha256 over config, headers, sizes, mtimes, volume identity and content samples of every shard."""
    total_bytes: NonNegativeInt
    """Bytes of the weights on disk."""
    tensors: NonNegativeInt
    """Tensors."""
    shards: PositiveInt
    """Weight files."""
    quantization: SourceQuantization = SourceQuantization()
    """Quantisation of the source."""
    model_class: str | None = None
    """Class that config.json names, where the language model is a part of it (text_config)."""
    notes: tuple[str, ...] = ()
    """What lies in the folder and is not the model, and why; the first few."""
    free_bytes: NonNegativeInt | None = None
    """Free bytes on the conversion volume when inspected."""
    earlier: EarlierRun | None = None
    """What an earlier job of this name left in the run folder; none when it left nothing."""
