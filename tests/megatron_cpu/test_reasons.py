"""What rules say Megatron lacks on a CPU is what megatron-core itself says."""

import pytest
import torch
from megatron.core.ssm.gated_delta_net import common
from megatron.core.transformer.experimental_attention_variant import dsa

from lprl_api.model.megatron import NOT_STAGED


def test_gated_delta_nets_and_indexers_need_packages_with_gpu_kernels() -> None:
    assert not common.HAVE_FLA and "fla" in NOT_STAGED["qwen3_5"]
    assert dsa.hadamard_transform is None and "fast_hadamard_transform" in NOT_STAGED["glm_moe_dsa"]
    with pytest.raises(AssertionError, match="fast_hadamard_transform is not installed"):
        dsa.rotate_activation(torch.zeros(1, 2, dtype=torch.bfloat16))
