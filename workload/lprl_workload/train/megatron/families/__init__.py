"""Families of models: a file each (its table, its part of Megatron's configuration), by the name their shapes have, or their model_type."""

from collections.abc import Mapping
from types import MappingProxyType

from lprl_api.errors import UserError
from lprl_api.model.by_class import proven_type
from lprl_api.model.model_shape import ModelShape
from lprl_workload.train.megatron.families.deepseek_v3 import DEEPSEEK_V3
from lprl_workload.train.megatron.families.deepseek_v32 import DEEPSEEK_V32
from lprl_workload.train.megatron.families.family import REMEDY, Family
from lprl_workload.train.megatron.families.glm4_moe import GLM4_MOE
from lprl_workload.train.megatron.families.glm4_moe_lite import GLM4_MOE_LITE
from lprl_workload.train.megatron.families.llama import LLAMA
from lprl_workload.train.megatron.families.qwen2 import QWEN2
from lprl_workload.train.megatron.families.qwen3 import QWEN3
from lprl_workload.train.megatron.families.qwen3_5 import QWEN3_5
from lprl_workload.train.megatron.families.qwen3_moe import QWEN3_MOE

_ALL = (LLAMA, QWEN2, QWEN3, QWEN3_MOE, DEEPSEEK_V3, GLM4_MOE, GLM4_MOE_LITE, *QWEN3_5, *DEEPSEEK_V32)
FAMILIES: Mapping[str, Family] = MappingProxyType({family.name: family for family in _ALL})


def family_of(shape: ModelShape) -> Family:
    """Return the family of a model; raises UserError for one that no file here is of."""
    found = FAMILIES.get(shape.family if shape.family != "other" else proven_type(shape.architecture) or "")
    if found is None:
        raise UserError(f"{shape.architecture}: backends.trainer megatron has no table of it", REMEDY)
    return found
