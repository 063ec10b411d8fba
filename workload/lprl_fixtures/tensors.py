"""Names, shapes and initial distributions of every checkpoint tensor, as the published checkpoints name them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One checkpoint tensor."""

    name: str
    shape: tuple[int, ...]
    init: Literal["normal", "ones", "zeros"] = "normal"
    float32: bool = False
    """Stored in float32 whatever the checkpoint's dtype (the routing bias of DeepSeek-V3)."""

    @property
    def numel(self) -> int:
        """Number of elements."""
        product = 1
        for size in self.shape:
            product *= size
        return product


def _mlp(prefix: str, hidden: int, ffn: int) -> Iterator[TensorSpec]:
    yield TensorSpec(f"{prefix}.gate_proj.weight", (ffn, hidden))
    yield TensorSpec(f"{prefix}.up_proj.weight", (ffn, hidden))
    yield TensorSpec(f"{prefix}.down_proj.weight", (hidden, ffn))


def _attention(prefix: str, c: dict[str, Any]) -> Iterator[TensorSpec]:
    hidden, heads, kv_heads = c["hidden_size"], c["num_attention_heads"], c["num_key_value_heads"]
    dim = c.get("head_dim") or hidden // heads
    for name, rows in (("q_proj", heads * dim), ("k_proj", kv_heads * dim), ("v_proj", kv_heads * dim)):
        yield TensorSpec(f"{prefix}.{name}.weight", (rows, hidden))
        if c["model_type"] == "qwen2":
            yield TensorSpec(f"{prefix}.{name}.bias", (rows,), "zeros")
    yield TensorSpec(f"{prefix}.o_proj.weight", (hidden, heads * dim))
    if c["model_type"].startswith("qwen3"):
        yield TensorSpec(f"{prefix}.q_norm.weight", (dim,), "ones")
        yield TensorSpec(f"{prefix}.k_norm.weight", (dim,), "ones")


def _latent_attention(prefix: str, c: dict[str, Any]) -> Iterator[TensorSpec]:
    hidden, heads, rank = c["hidden_size"], c["num_attention_heads"], c["kv_lora_rank"]
    query_rows = heads * (c["qk_nope_head_dim"] + c["qk_rope_head_dim"])
    if c["q_lora_rank"] is None:
        yield TensorSpec(f"{prefix}.q_proj.weight", (query_rows, hidden))
    else:
        yield TensorSpec(f"{prefix}.q_a_proj.weight", (c["q_lora_rank"], hidden))
        yield TensorSpec(f"{prefix}.q_a_layernorm.weight", (c["q_lora_rank"],), "ones")
        yield TensorSpec(f"{prefix}.q_b_proj.weight", (query_rows, c["q_lora_rank"]))
    yield TensorSpec(f"{prefix}.kv_a_proj_with_mqa.weight", (rank + c["qk_rope_head_dim"], hidden))
    yield TensorSpec(f"{prefix}.kv_a_layernorm.weight", (rank,), "ones")
    yield TensorSpec(f"{prefix}.kv_b_proj.weight", (heads * (c["qk_nope_head_dim"] + c["v_head_dim"]), rank))
    yield TensorSpec(f"{prefix}.o_proj.weight", (hidden, heads * c["v_head_dim"]))


def _experts(prefix: str, experts: int, hidden: int, ffn: int, fused: bool) -> Iterator[TensorSpec]:
    if fused:
        yield TensorSpec(f"{prefix}.gate_up_proj", (experts, 2 * ffn, hidden))
        yield TensorSpec(f"{prefix}.down_proj", (experts, hidden, ffn))
        return
    for expert in range(experts):
        yield from _mlp(f"{prefix}.{expert}", hidden, ffn)


def _feed_forward(prefix: str, c: dict[str, Any], layer: int, fused: bool) -> Iterator[TensorSpec]:
    hidden = c["hidden_size"]
    experts = c.get("num_experts") or c.get("n_routed_experts") or 0
    if not experts or layer < c.get("first_k_dense_replace", 0):
        yield from _mlp(prefix, hidden, c["intermediate_size"])
        return
    yield TensorSpec(f"{prefix}.gate.weight", (experts, hidden))
    if c["model_type"] == "deepseek_v3":
        yield TensorSpec(f"{prefix}.gate.e_score_correction_bias", (experts,), "zeros", float32=True)
    yield from _experts(f"{prefix}.experts", experts, hidden, c["moe_intermediate_size"], fused)
    if c.get("n_shared_experts"):
        yield from _mlp(f"{prefix}.shared_experts", hidden, c["n_shared_experts"] * c["moe_intermediate_size"])


def tensor_specs(config: dict[str, Any], fused_experts: bool = False) -> Iterator[TensorSpec]:
    """Yield every tensor of the checkpoint that `config` (a config.json of architectures.model_config) describes.

    Published checkpoints store experts one by one; `fused_experts` gives the 3-D form transformers 5 can save.
    """
    hidden = config["hidden_size"]
    yield TensorSpec("model.embed_tokens.weight", (config["vocab_size"], hidden))
    attention = _latent_attention if config["model_type"] == "deepseek_v3" else _attention
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}"
        yield TensorSpec(f"{prefix}.input_layernorm.weight", (hidden,), "ones")
        yield from attention(f"{prefix}.self_attn", config)
        yield TensorSpec(f"{prefix}.post_attention_layernorm.weight", (hidden,), "ones")
        yield from _feed_forward(f"{prefix}.mlp", config, layer, fused_experts)
    yield TensorSpec("model.norm.weight", (hidden,), "ones")
    if not config["tie_word_embeddings"]:
        yield TensorSpec("lm_head.weight", (config["vocab_size"], hidden))
