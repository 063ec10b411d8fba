"""Parts and tensors: what a rank's parameters take from a checkpoint, and give back. Needs torch, and no Megatron."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Mapping as ReadOnly
from pathlib import Path

import torch
from torch import Tensor

from lprl_api.errors import UserError
from lprl_workload.folder.model import read_contents
from lprl_workload.hf.folder_weights import published_weights
from lprl_workload.hf.naming import has_more
from lprl_workload.hf.slots import is_known_extra
from lprl_workload.quant.select import is_fused
from lprl_workload.sync.manifest import Shard, WeightManifest
from lprl_workload.train.megatron.mapping import Held, Mapping
from lprl_workload.train.megatron.parts import Part

Parameters = ReadOnly[tuple[int, str], Tensor]
"""(model chunk, name) -> parameter or buffer of a rank."""


def where(parameter: Tensor, part: Part) -> Tensor:
    """Return the part of a parameter as a view: [runs, run, ...] of several runs, [rows, ...] of one."""
    if part.runs == 1:
        return parameter[part.row : part.row + part.run]
    return parameter.view(-1, part.step, *parameter.shape[1:])[:, part.row : part.row + part.run]


def read(parameter: Tensor, part: Part) -> Tensor:
    """Return what lies there, in the checkpoint's order and shape (a view where it is one run)."""
    return where(parameter, part).reshape(part.shape)


def write(parameter: Tensor, part: Part, tensor: Tensor) -> None:
    """Copy from the checkpoint's whole tensor, converting dtype and device."""
    index = tuple(slice(first, first + size) for first, size in zip(part.offset, part.shape, strict=True))
    target = where(parameter, part)
    target.copy_(tensor[index].reshape(target.shape))


@torch.no_grad()
def load(tensors: Iterable[tuple[str, Tensor]], mapping: Mapping, rank: int, parameters: Parameters) -> None:
    """Fill a rank's parameters from a checkpoint's tensors, in any order; the vocabulary's padding becomes zero.

    Raises UserError for a tensor that is unknown, misshapen, quantised, or (at the end) missing.
    """
    wanted: dict[str, list[tuple[Held, Part]]] = {}
    for held in mapping.held(rank):
        if held.cutting.padding:
            parameters[held.chunk, held.name][-held.cutting.padding :].zero_()
        for part in held.cutting.parts:
            wanted.setdefault(part.name, []).append((held, part))
    missing = set(wanted)
    for name, tensor in tensors:
        _check(name, tensor, mapping)
        for held, part in wanted.get(name, ()):
            write(parameters[held.chunk, held.name], part, tensor)
        missing.discard(name)
    if missing:
        raise UserError(f"{len(missing)} tensors missing, such as {min(missing)}", "copy or download the model folder again")


def _check(name: str, tensor: Tensor, mapping: Mapping) -> None:
    _check_name(name, mapping)
    shape = mapping.tensors.get(name)
    if shape is None:
        return
    if tuple(tensor.shape) != shape:
        raise UserError(f"tensor {name} has shape {list(tensor.shape)}, needs {list(shape)}")
    if not tensor.is_floating_point() or tensor.element_size() < 2:
        remedy = "train from a BF16, FP16 or FP32 folder; the conversion can dequantise this one"
        raise UserError(f"tensor {name} is {str(tensor.dtype).removeprefix('torch.')}", remedy)


def _check_name(name: str, mapping: Mapping) -> None:
    if name not in mapping.tensors and not is_known_extra(name, mapping.shape) and not is_fused(name):
        raise UserError(f"tensor {name} is not in a {mapping.shape.architecture}", "restore the config.json the model was published with")


def stored(folder: Path, mapping: Mapping, rank: int) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a folder's model that `rank` has a part of, one at a time, experts one by one.

    Raises what `read_contents` raises: for the whole folder, whatever the rank has of it.
    """
    contents = read_contents(folder)
    if not has_more(folder, mapping.shape.family):
        for name in contents.tensors:
            _check_name(name, mapping)
    mine = {part.name for held in mapping.held(rank) for part in held.cutting.parts}
    fused = contents.ruled.fused.keys() if contents.ruled is not None else ()
    for name, tensor in published_weights(folder, mapping.shape, lambda name: name in mine or name in fused or is_fused(name)):
        if name in mine:
            yield name, tensor


class PartsSource:
    """A rank's parameters as a WeightSource: every part it owns, under its Hugging Face name, as it lies there. No gathering.

    BF16, except router correction biases (float32 in published checkpoints, and they steer a discrete choice).
    """

    def __init__(
        self, mapping: Mapping, rank: int, values: Parameters, device: torch.device, require: Callable[[], None] = lambda: None
    ) -> None:
        """Read nothing yet.

        Args:
            mapping: of the ranks.
            rank: this one.
            values: what a checkpoint would store (masters, and buffers), read when `shards` comes to them.
            device: of the pieces that are handed out.
            require: raises where the values cannot be read now.

        """
        self._mapping, self._rank, self._values, self._device, self._require = mapping, rank, values, device, require
        self._owned = mapping.owned(rank)

    @property
    def device(self) -> torch.device:
        """Return the rank's device."""
        return self._device

    def manifest(self) -> WeightManifest:
        """Return who owns what, sorted by name."""
        return self._mapping.manifest()

    def shards(self, names: Sequence[str]) -> Iterator[Shard]:
        """Yield this rank's pieces of `names`; nothing of another rank is needed for that."""
        self._require()
        entries = {entry.name: entry for entry in self.manifest().entries}
        for name in names:
            dtype = torch.float32 if entries[name].dtype == "F32" else torch.bfloat16
            for piece in entries[name].pieces:
                if piece.rank == self._rank:
                    held, part = self._owned[name, piece.offset]
                    values = read(self._values[held.chunk, held.name].detach(), part)
                    yield Shard(name, piece.offset, values.to(self._device, dtype).contiguous())
