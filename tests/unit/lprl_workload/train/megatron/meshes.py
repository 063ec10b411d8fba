"""Models and meshes that fit each other, drawn at random; checkpoints in which every element is another number."""

from math import prod

import torch
from hypothesis import assume
from hypothesis import strategies as st
from torch import Tensor

from lprl_api.model.checkpoint_tensors import checkpoint_tensors
from lprl_api.model.model_shape import Mla, ModelShape, Moe
from lprl_workload.train.megatron.mapping import Held, Mapping
from lprl_workload.train.megatron.stages import Stages
from lprl_workload.train.mesh import TrainMesh

CLASSES = {
    "llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM",
    "qwen3-moe": "Qwen3MoeForCausalLM", "deepseek-v3": "DeepseekV3ForCausalLM",
}  # fmt: skip


def shape_of(family: str = "qwen3", layers: int = 2, heads: int = 4, kv_heads: int = 2, experts: int = 0, **changes: object) -> ModelShape:
    latent = family == "deepseek-v3"
    moe = Moe(experts=experts, experts_per_token=1, expert_ffn=8, shared_expert_ffn=8 * latent, dense_layers=latent) if experts else None
    mla = Mla(q_lora_rank=4, kv_lora_rank=6, qk_nope_head_dim=2, qk_rope_head_dim=2, v_head_dim=2) if latent else None
    document = {
        "architecture": CLASSES[family], "family": family, "layers": layers, "hidden": 4, "heads": heads,
        "kv_heads": kv_heads, "head_dim": 2, "ffn": 16, "vocab": 70, "tied_embeddings": False, "qk_norm": family.startswith("qwen3"),
        "attention_bias": family == "qwen2", "moe": moe, "mla": mla,
    }  # fmt: skip
    return ModelShape.model_validate(document | changes)


@st.composite
def mappings(draw: st.DrawFn) -> Mapping:
    family = draw(st.sampled_from(sorted(CLASSES)))
    tp, pp, vpp = draw(st.sampled_from([1, 2, 4])), draw(st.integers(1, 3)), draw(st.integers(1, 2))
    vpp = vpp if pp > 1 else 1
    each, last = vpp * draw(st.integers(1, 2)), vpp * draw(st.integers(1, 2))
    stages = Stages((*(each,) * (pp - 1), last), vpp)
    kv_heads = draw(st.sampled_from([1, 2, 3, 4]))
    heads = kv_heads * draw(st.sampled_from([1, 2, 4]))
    assume(heads % tp == 0 and (kv_heads % tp == 0 or (tp % kv_heads == 0 and (heads + 2 * kv_heads) * 2 % tp == 0)))
    routed = family in ("qwen3-moe", "deepseek-v3")
    ep, etp = (draw(st.sampled_from([1, 2, 4])), draw(st.sampled_from([1, 2]))) if routed else (1, 1)
    dp, cp = draw(st.sampled_from([1, 2, 4])), draw(st.sampled_from([1, 2]))
    assume(dp * cp * tp % (ep * etp) == 0)
    kv_heads = heads if family == "deepseek-v3" else kv_heads
    shape = shape_of(family, sum(stages.layers), heads, kv_heads, 4 * routed, tied_embeddings=draw(st.booleans()))
    return Mapping(shape, TrainMesh(dp, cp, tp, pp, vpp, ep, etp), stages, draw(st.sampled_from(["local", "te"])))


def numbered(shape: ModelShape) -> dict[str, Tensor]:
    """Return a checkpoint whose elements are 1, 2, 3, ... (exact in float64)."""
    found, first = {}, 1
    for name, size in checkpoint_tensors(shape).items():
        count = prod(size)
        found[name] = torch.arange(first, first + count, dtype=torch.float64).view(size)
        first += count
    return found


def empty(held: tuple[Held, ...]) -> dict[tuple[int, str], Tensor]:
    """Return a rank's parameters with a value in them that no checkpoint has."""
    return {(h.chunk, h.name): torch.full(h.cutting.shape, -1.0, dtype=torch.float64) for h in held}
