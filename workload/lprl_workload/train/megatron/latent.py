"""Latent attention of DeepSeek-V3: Megatron's own, less a norm that no checkpoint has, and with whole gradients on tensor ranks."""

from typing import Any

import torch
from megatron.core.tensor_parallel.mappings import (
    copy_to_tensor_model_parallel_region,
    gather_from_tensor_model_parallel_region,
    scatter_to_sequence_parallel_region,
)
from megatron.core.transformer.identity_op import IdentityOp
from megatron.core.transformer.multi_latent_attention import MLASelfAttention
from torch import Tensor


class LatentAttention(MLASelfAttention):  # type: ignore[misc]
    """megatron-core 0.19.2's, as its layer specs build it."""

    def _resolve_qk_norm_config(self, submodules: Any) -> dict[str, Any]:
        """Without a low-rank query there is no norm to fuse into its projection (Moonlight); upstream would add one."""
        if self.config.q_lora_rank is not None:
            found: dict[str, Any] = super()._resolve_qk_norm_config(submodules)
            return found
        return {
            "linear_q_proj": submodules.linear_q_proj,
            "linear_q_up_proj": IdentityOp,
            "linear_kv_up_proj": submodules.linear_kv_up_proj,
            "q_layernorm": IdentityOp,
            "kv_layernorm": submodules.kv_layernorm,
        }

    def _qkv_down_projection(self, hidden_states: Tensor) -> tuple[Tensor, Tensor]:
        """Return (query latent, key and value latent with the rotary key), each whole in its last dimension.

        Every tensor rank uses the rotary key for its own heads. Upstream takes the gathered one as it is, and of its gradient each
        rank then keeps a slice of its own heads' part only.
        """
        query, combined = super()._qkv_down_projection(hidden_states)
        rank, rope = self.config.kv_lora_rank, self.config.qk_pos_emb_head_dim
        if combined.size(-1) == rank + rope:
            return query, combined
        combined = gather_from_tensor_model_parallel_region(combined)
        if self.config.sequence_parallel:
            return query, scatter_to_sequence_parallel_region(combined)
        latent, key = torch.split(combined, [rank, rope], dim=-1)
        return query, torch.cat([latent, copy_to_tensor_model_parallel_region(key)], dim=-1)
