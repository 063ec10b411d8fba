"""FP32 masters of a rank's part of a model, and the forward weights made of them: fake-quantised part by part, as a checkpoint has them.

A parameter holds parts of several checkpoint tensors (query, key and value by group; gate above up). Each part is quantised on its own,
by the functions that convert a checkpoint, and only where no block or group of the checkpoint's tensor reaches over two ranks. Of ranks
that hold the same parameter one has its master (replicas.py).
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from lprl_api.errors import UserError
from lprl_api.model.formats import Bf16, WeightFormat
from lprl_api.spec.algorithm import Optimizer
from lprl_workload.hf.activations import InputQuantizer
from lprl_workload.hf.arithmetic import selected_names
from lprl_workload.hf.chosen import chosen_of
from lprl_workload.quant.scheme import fake_quantize
from lprl_workload.train.masters import Master, Masters
from lprl_workload.train.megatron.configuration import multiplies_in_fp8
from lprl_workload.train.megatron.mapping import Held, Mapping, quantised
from lprl_workload.train.megatron.model import StagedModel
from lprl_workload.train.megatron.parts import Cutting, Part
from lprl_workload.train.megatron.ranks import Ranks
from lprl_workload.train.megatron.replicas import Replicas
from lprl_workload.train.megatron.weights import Parameters, read, where


def key_of(chunk: int, name: str) -> str:
    """Return what a parameter of a model chunk is called among masters."""
    return f"{chunk}|{name}"


class StagedMasters(Masters):
    """Masters of one rank's model; forward weights are filled by `refresh`."""

    def __init__(self, model: StagedModel, ranks: Ranks, fmt: WeightFormat, settings: Optimizer, folder: Path) -> None:
        """Make masters of a model's parameters, rows still zero, and of linear layers that `fmt` quantises the inputs it asks for.

        `folder`: of the model.
        Raises UserError where the format selects nothing of the model, or a tensor is cut inside a block or group.
        """
        mapping, self._model = model.mapping, model
        self._cuttings: dict[str, Cutting] = {key_of(h.chunk, h.name): h.cutting for h in mapping.held(ranks.rank)}
        chosen = selected(mapping, ranks.rank, fmt, folder)
        self.replicas = Replicas(ranks.rank, mapping.held(ranks.rank), mapping.keepers(ranks.rank))
        trained = {key: p for key, p in model.parameters.items() if isinstance(p, nn.Parameter)}
        kept = {key_of(*key): p for key, p in trained.items() if self.replicas.keeps(key)}
        elsewhere = {key_of(*key): p for key, p in trained.items() if not self.replicas.keeps(key)}
        in_products = multiplies_in_fp8(fmt, ranks.device)
        ours = () if in_products else chosen
        super().__init__(kept, frozenset(key_of(*held.key) for held in ours), fmt, settings, ranks.group, elsewhere)
        if mapping.modules == "te":
            from lprl_workload.train.megatron import gpu

            gpu.add_to_masters(model.chunks, self.gradients)
            if in_products:
                gpu.multiply_in_fp8(model.chunks, mapping.held(ranks.rank), chosen, fmt)
        emulate_inputs(model, ours, fmt)

    @property
    def values(self) -> Parameters:
        """What a checkpoint would store, by chunk and name: masters that are kept here, other forward weights and buffers as they are."""
        found = self.items
        return {key: found[key_of(*key)].value if key_of(*key) in found else tensor for key, tensor in self._model.parameters.items()}

    @property
    def gradients(self) -> dict[tuple[int, str], Tensor]:
        """Float32 gradients of all that is trained, by chunk and name."""
        places = {id(parameter): grad for parameter, grad in self._trained}
        return {key: places[id(tensor)] for key, tensor in self._model.parameters.items() if id(tensor) in places}

    @torch.no_grad()
    def refresh(self) -> None:
        """Write every forward weight from its master, here or on the rank that keeps it: all ranks together."""
        super().refresh()
        weights = {key: p.detach() for key, p in self._model.parameters.items() if isinstance(p, nn.Parameter)}
        self.replicas.hand_out(weights)

    def _quantised(self, master: Master) -> Tensor:
        found = torch.empty_like(master.value)
        for part in self._cuttings[master.name].parts:
            target = where(found, part)
            target.copy_(fake_quantize(read(master.value, part), self._fmt).reshape(target.shape))
        return found


def selected(mapping: Mapping, rank: int, fmt: WeightFormat, folder: Path) -> tuple[Held, ...]:
    """Return what of a rank's parameters `fmt` quantises; raises UserError as StagedMasters says."""
    if isinstance(fmt, Bf16):
        return ()
    selected_names(mapping.tensors, fmt, mapping.shape, folder)
    try:
        keys = quantised(mapping, rank, chosen_of(folder, fmt, mapping.shape))
    except ValueError as error:
        raise UserError(f"precision.excludeModules: {error}", "exclude all of them or none") from error
    found = tuple(held for held in mapping.held(rank) if (held.chunk, held.name) in keys)
    for held in found:
        for part in held.cutting.parts:
            _check_tiles(part, mapping.tensors[part.name], fmt)
    return found


def _check_tiles(part: Part, whole: tuple[int, ...], fmt: WeightFormat) -> None:
    """Raise UserError where a block or group of a tensor lies in this part and outside of it."""
    for axis, (first, size, total, tile) in enumerate(zip(part.offset, part.shape, whole, fmt.tile(*whole), strict=True)):
        last = first + size
        if first % tile or (last % tile and last != total):
            what = f"topology.trainer: {fmt.kind} scales {tile} {('rows', 'columns')[axis]} of {part.name} together"
            raise UserError(f"{what}, and one rank has {first} to {last} of {total}", "choose a smaller tensor or expertTensor size")


def emulate_inputs(model: StagedModel, chosen: tuple[Held, ...], fmt: WeightFormat) -> None:
    """Make every layer with FP8 weights fake-quantise its input, in place, where the format asks for it."""
    if fmt.activation_group is None or not chosen:
        return
    quantizer = InputQuantizer(fmt.activation_group)
    for chunk in model.chunks:
        chunk.decoder.register_forward_hook(quantizer.forget)
    for held in chosen:
        model.chunks[held.chunk].get_submodule(held.name.removesuffix(".weight")).register_forward_pre_hook(quantizer)
