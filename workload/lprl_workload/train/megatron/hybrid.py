"""Layers of Qwen3-Next and Qwen3.5: attention whose output has a gate, and gated delta nets, computed by transformers' own layer.

megatron-core has a gated delta net that needs GPU kernels of another package; ours is the class's layer with a tensor rank's heads, run
over packed rows as the torch trainer runs it.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from importlib import import_module
from typing import Any

import torch
from megatron.core.tensor_parallel.mappings import (
    all_gather_last_dim_from_tensor_parallel_region,
    copy_to_tensor_model_parallel_region,
    gather_from_sequence_parallel_region,
    reduce_from_tensor_model_parallel_region,
    reduce_scatter_to_sequence_parallel_region,
)
from megatron.core.transformer.attention import SelfAttention
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_block import TransformerBlockSubmodules
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor

from lprl_api.errors import UserError
from lprl_workload.hf.packed_linear import use_packed_linear
from lprl_workload.hf.unfilled import unfilled
from lprl_workload.train.megatron.packed import PackedTokens, ShiftedHeadNorm, ShiftedNorm

LINEAR = "linear_attention"


def use_hybrid_layers(block: TransformerBlockSubmodules, kinds: Sequence[str], written: Any, ranks: int) -> None:
    """Put our modules into the specs of a chunk's layers, in place.

    Args:
        block: as layer_specs returns it; layers may share one spec.
        kinds: of each layer, as config.json calls them.
        written: transformers' configuration of the model.
        ranks: tensor ranks.

    Raises UserError where tensor ranks cannot share out the heads.

    """
    block.layer_norm, own = ShiftedNorm, _shared_out(written, ranks)
    for place, (layer, kind) in enumerate(zip(block.layer_specs, kinds, strict=True)):
        attention = deepcopy(layer.submodules.self_attention)
        if kind == LINEAR:
            attention = ModuleSpec(module=GatedDelta, params={"written": own})
        else:
            attention.module = GatedAttention
            attention.submodules.q_layernorm = attention.submodules.k_layernorm = ShiftedHeadNorm
        inside = replace(layer.submodules, input_layernorm=ShiftedNorm, pre_mlp_layernorm=ShiftedNorm, self_attention=attention)
        block.layer_specs[place] = replace(layer, submodules=inside)


def _shared_out(written: Any, ranks: int) -> Any:
    """Return a configuration with one tensor rank's heads of gated delta nets; raises UserError."""
    own = deepcopy(written)
    for key in ("linear_num_key_heads", "linear_num_value_heads"):
        each, left = divmod(getattr(written, key), ranks)
        if left:
            what = f"topology.trainer.tensor {ranks}: config.json says {key} {getattr(written, key)}, which ranks cannot share equally"
            raise UserError(what, "choose a tensor size that divides it")
        setattr(own, key, each)
    return own


class GatedAttention(SelfAttention):  # type: ignore[misc]
    """Megatron's, with the rows of the query's projection as checkpoints have them: of each head its query, then its gate."""

    def get_query_key_value_tensors(
        self, hidden_states: Tensor, key_value_states: Tensor | None = None, output_gate: bool = True, split_qkv: bool = True
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return query [N, 1, heads, dim], key and value [N, 1, groups, dim] and the gate, like the query, of this rank's heads."""
        mixed, _ = self.linear_qkv(hidden_states)
        each, dim, groups = 1, self.hidden_size_per_attention_head, self.num_query_groups_per_partition
        rank = self.pg_collection.tp.rank()
        if self.config.num_query_groups < self.world_size:
            # A group's rows lie over several ranks: each takes the whole group, and of its queries its own.
            each = self.world_size // self.config.num_query_groups
            mixed = all_gather_last_dim_from_tensor_parallel_region(mixed, group=self.pg_collection.tp)
            mixed = mixed.chunk(self.config.num_query_groups, dim=-1)[rank // each]
        mixed = mixed.reshape(*mixed.shape[:2], groups, -1)
        query, key, value = torch.split(mixed, [mixed.shape[-1] - 2 * dim, dim, dim], dim=-1)
        heads = query.reshape(*query.shape[:2], -1, 2 * dim).chunk(each, dim=2)[rank % each]
        query, gate = heads.chunk(2, dim=-1)
        return self.q_layernorm(query), self.k_layernorm(key), value, gate


class GatedDelta(MegatronModule):  # type: ignore[misc]
    """A gated delta net in place of a layer's attention: transformers' layer, with this tensor rank's heads. No context parallelism."""

    def __init__(self, config: TransformerConfig, written: Any, layer_number: int, pg_collection: Any = None, **_: Any) -> None:
        """Build it of what config.json says, weights uninitialised.

        Args:
            config: Megatron's.
            written: transformers', with the heads of a tensor rank.
            layer_number: counted from 1, over the whole model.
            pg_collection: of Megatron's groups, the one of tensor ranks is used.
            _: what else Megatron builds attention with.

        """
        super().__init__(config=config)
        module = import_module(type(written).__module__.replace("configuration_", "modeling_"))
        (found,) = (value for name, value in vars(module).items() if name.endswith("GatedDeltaNet"))
        with unfilled(torch.device(torch.cuda.current_device())):
            self.net = found(written, layer_number - 1).to(config.params_dtype)
        self._group, self._sequence_parallel = pg_collection.tp, config.sequence_parallel
        self.net.norm.weight.of_own_heads = True
        use_packed_linear(self)

    def forward(self, hidden_states: Tensor, packed_seq_params: PackedTokens, **_: Any) -> tuple[Tensor, None]:
        """Return ([N, 1, H], None) of hidden states [N, 1, H], of sequence-parallel ranks each its share of N."""
        if self._sequence_parallel:
            whole = gather_from_sequence_parallel_region(hidden_states, group=self._group)
        else:
            whole = copy_to_tensor_model_parallel_region(hidden_states, group=self._group)
        share = self.net(hidden_states=whole.transpose(0, 1), layout=packed_seq_params.layout).transpose(0, 1)
        if self._sequence_parallel:
            return reduce_scatter_to_sequence_parallel_region(share, group=self._group), None
        return reduce_from_tensor_model_parallel_region(share, group=self._group), None
