"""DeepSeek-V3.2 and GLM-5: the layers of DeepSeek-V3, with an indexer that chooses the keys queries attend to. Pure."""

from lprl_workload.train.megatron.families.deepseek_v3 import DEEPSEEK_V3
from lprl_workload.train.megatron.families.family import Family
from lprl_workload.train.megatron.families.glm4_moe_lite import whole_rotary_fields
from lprl_workload.train.megatron.table import Row

_INDEXER = "self_attention.core_attention.indexer."
INDEXER = tuple(
    Row(f"{_INDEXER}{name}", (f"self_attn.indexer.{name}",))
    for name in ("wq_b.weight", "wk.weight", "k_norm.weight", "k_norm.bias", "weights_proj.weight")
)
DEEPSEEK_V32 = tuple(
    Family(name, (*DEEPSEEK_V3.layer, *INDEXER), whole_rotary_fields, modules="indexed") for name in ("deepseek_v32", "glm_moe_dsa")
)
