"""Families of models: a file each (its table, its part of Megatron's configuration), by the name their shapes have."""

from collections.abc import Mapping
from types import MappingProxyType

from lprl_workload.train.megatron.families.deepseek_v3 import DEEPSEEK_V3
from lprl_workload.train.megatron.families.family import Family
from lprl_workload.train.megatron.families.llama import LLAMA
from lprl_workload.train.megatron.families.qwen2 import QWEN2
from lprl_workload.train.megatron.families.qwen3 import QWEN3
from lprl_workload.train.megatron.families.qwen3_moe import QWEN3_MOE

FAMILIES: Mapping[str, Family] = MappingProxyType({family.name: family for family in (LLAMA, QWEN2, QWEN3, QWEN3_MOE, DEEPSEEK_V3)})
