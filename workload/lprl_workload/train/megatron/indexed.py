"""Latent attention to the keys an indexer chooses (DeepSeek-V3.2, GLM-5): transformers' own indexer, run over packed rows.

megatron-core has an indexer that needs GPU kernels of another package. A choice has no gradient: an indexer stays as it was published,
and every tensor rank has all of it. Layers that share a choice take it from what the micro-batch carries.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from importlib import import_module
from typing import Any

import torch
from megatron.core.tensor_parallel.mappings import gather_from_sequence_parallel_region
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_block import TransformerBlockSubmodules
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor

from lprl_api.errors import UserError
from lprl_workload.hf.indexed import use_packed_indexer
from lprl_workload.hf.unfilled import unfilled
from lprl_workload.train.megatron.packed import PackedAttention, PackedTokens
from lprl_workload.train.megatron.stages import Stages


def use_indexers(block: TransformerBlockSubmodules, layers: Sequence[int], written: Any, frequencies: Tensor) -> None:
    """Put indexers into the specs of a chunk's layers, in place.

    Args:
        block: as layer_specs returns it; layers may share one spec.
        layers: their numbers over the whole model.
        written: transformers' configuration of the model.
        frequencies: of its rotary embedding, [dim / 2].

    """
    chooser = _choosers(written)
    for place, (layer, number) in enumerate(zip(block.layer_specs, layers, strict=True)):
        attention = deepcopy(layer.submodules.self_attention)
        how = {"written": written, "frequencies": frequencies, "chooser": chooser[number]}
        attention.submodules.core_attention = ModuleSpec(module=ChosenAttention, params=how)
        block.layer_specs[place] = replace(layer, submodules=replace(layer.submodules, self_attention=attention))


def check_choices(stages: Stages, written: Any) -> None:
    """Raise UserError, on every rank alike, where a layer takes the choice of one that lies in another stage or chunk."""
    chooser = _choosers(written)
    for stage in range(len(stages.layers)):
        for layers in (stages.chunk(stage, chunk) for chunk in range(stages.vpp)):
            if chooser[layers[0]] not in layers:
                what = f"topology.trainer: layer {layers[0]} takes the keys that layer {chooser[layers[0]]} chooses, which lies in another"
                fits = sorted(set(chooser))
                raise UserError(f"{what} stage or chunk", f"choose a layout whose stages and chunks begin with layers of {fits}")


def _choosers(written: Any) -> list[int]:
    """Return, of each layer, the number of the layer whose indexer chooses its keys."""
    kinds = getattr(written, "indexer_types", None) or ["full"] * written.num_hidden_layers
    return [max(n for n in range(number + 1) if kinds[n] != "shared") for number in range(len(kinds))]


class ChosenAttention(PackedAttention):
    """Core attention of latent attention to chosen keys, and the indexer that chooses them where the layer has one."""

    requires_dsa_inputs = True
    """Has megatron-core's latent attention hand over what an indexer reads."""

    def __init__(self, config: TransformerConfig, written: Any, frequencies: Tensor, chooser: int, layer_number: int, **rest: Any) -> None:
        """Build it, weights uninitialised.

        Args:
            config: Megatron's.
            written: transformers'.
            frequencies: of the rotary embedding, [dim / 2].
            chooser: number of the layer whose indexer chooses, from 0.
            layer_number: of this layer, from 1.
            rest: what else Megatron builds core attention with.

        """
        super().__init__(config=config, **rest)
        self._frequencies, self._chooser, self._sequence_parallel = frequencies, chooser, config.sequence_parallel
        self.indexer = None
        if chooser == layer_number - 1:
            module = import_module(type(written).__module__.replace("configuration_", "modeling_"))
            (found,) = (value for name, value in vars(module).items() if name.endswith("Indexer"))
            with unfilled(torch.device(torch.cuda.current_device())):
                self.indexer = found(written, chooser).to(config.params_dtype)
            use_packed_indexer(self.indexer)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        packed_seq_params: PackedTokens,
        x: Tensor | None = None,
        qr: Tensor | None = None,
        **_: Any,
    ) -> Tensor:
        """Return what PackedAttention returns, of chosen keys.

        Of sequence-parallel ranks the layer's input `x` [N, 1, H] and the normalised latent of its queries `qr` [N, rank] are shares.
        """
        if self.indexer is not None:
            assert x is not None and qr is not None
            packed_seq_params.chosen[self._chooser] = self._chosen(x[:, 0], qr.view(x.shape[0], -1), packed_seq_params)
        return self._attended(query, key, value, packed_seq_params, packed_seq_params.chosen[self._chooser])

    @torch.no_grad()
    def _chosen(self, hidden: Tensor, latent: Tensor, packed: PackedTokens) -> list[Tensor]:
        """Return the keys each query of a micro-batch attends to, a tensor for each part of its layout."""
        if self._sequence_parallel:
            hidden, latent = (gather_from_sequence_parallel_region(part) for part in (hidden, latent))
        assert packed.positions is not None and self.indexer is not None
        angles = torch.outer(packed.positions.float(), self._frequencies).repeat(1, 2)[None]
        turned = angles.cos().to(hidden.dtype), angles.sin().to(hidden.dtype)
        self.indexer.layout = packed.layout
        found: list[Tensor] = self.indexer(hidden[None], latent[None], turned, None)
        return found
