"""A model that holds served weights and computes as an engine does.

Weights arrive as served tensors (codes and scales under their checkpoint names), in any order and any number of `load` calls,
are dequantised once and written into the model in place; a weight update is the same call again. Arithmetic follows the
format: FP8 fake-quantises activations before every product with FP8 weights, INT4 computes with bf16(q * scale).
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from lprl_api.errors import UserError
from lprl_api.model.formats import WeightFormat
from lprl_api.model.model_shape import ModelShape
from lprl_workload.data import NamedTensor
from lprl_workload.hf.arithmetic import emulate_activations, selected_slots
from lprl_workload.hf.folder_weights import published_weights
from lprl_workload.hf.model import build_model
from lprl_workload.hf.naming import has_more
from lprl_workload.hf.slots import WeightSlot, is_known_extra, weight_slots
from lprl_workload.quant.scheme import dequantize, module_of, served_names


class ServedModel:
    """A transformers model fed with tensors in the served format `fmt`."""

    def __init__(self, folder: Path, fmt: WeightFormat, shape: ModelShape, device: torch.device | str) -> None:
        """Build the model of `folder`'s config.json on `device`; its weights are undefined until loaded.

        Raises UserError when `fmt` selects no tensor of the model, or the config does not fit.
        """
        self.fmt = fmt
        self.shape = shape
        self._more = has_more(folder, shape.family)
        self.device = torch.device(device)
        self.model = build_model(folder, shape, device)
        self.model.requires_grad_(False)
        slots = weight_slots(self.model, shape)
        selected = selected_slots(slots, fmt, shape, folder)
        emulate_activations(self.model, slots, selected, fmt)
        self._slot_of: dict[str, tuple[WeightSlot, tuple[str, ...]]] = {}
        for slot in slots:
            names = served_names(slot.name, fmt) if slot.name in selected else (slot.name,)
            self._slot_of.update({name: (slot, names) for name in names})
        self._partial: dict[str, dict[str, Tensor]] = {}
        self._missing: set[str] = set(self._slot_of)

    def served_tensors(self) -> tuple[str, ...]:
        """Return the names of all served tensors the model expects, sorted."""
        return tuple(sorted(self._slot_of))

    def begin(self) -> None:
        """Start a full update: every tensor counts as missing again; the present values stay until overwritten."""
        self._missing = set(self._slot_of)
        self._partial.clear()

    def drop(self) -> None:
        """Free the parameters' memory; `restore` and a full update bring them back."""
        self._sizes = [(p, p.shape) for p in self.model.parameters()]
        for parameter, _ in self._sizes:
            parameter.data = parameter.data.new_empty(0)
        self.begin()

    def restore(self) -> None:
        """Take the memory of `drop` back, its content undefined."""
        for parameter, size in self._sizes:
            parameter.data = parameter.data.new_empty(size)

    def missing(self) -> tuple[str, ...]:
        """Return the served tensors not yet arrived since the start or the last `begin`, sorted."""
        return tuple(sorted(self._missing))

    @torch.no_grad()
    def load(self, items: Iterable[tuple[str, Tensor]]) -> None:
        """Take served tensors, whose memory may be reused by the caller afterwards.

        Raises UserError for a tensor the model does not have, a shape that differs, or codes where values are expected.
        """
        touched: set[str] = set()
        for name, tensor in items:
            found = self._slot_of.get(name)
            if found is None:
                if self._more or is_known_extra(name, self.shape):
                    continue
                raise UserError(f"tensor {name}: not in a {self.fmt.kind} {self.shape.architecture}", "serve the format the job names")
            slot, names = found
            self._missing.discard(name)
            if len(names) == 1:
                slot.write(_value(name, tensor, slot))
                continue
            parts = self._partial.setdefault(slot.name, {})
            parts[name] = tensor.to(self.device)
            if len(parts) < len(names):
                touched.add(slot.name)
                continue
            slot.write(dequantize(parts, module_of(slot.name), self.fmt))
            del self._partial[slot.name]
        self._keep(touched)

    def load_folder(self, folder: Path) -> None:
        """Load every tensor of a served Hugging Face folder; raises UserError when one is missing."""
        self.begin()
        self.load(published_weights(folder, self.shape))
        if missing := self.missing():
            raise UserError(
                f"{folder}: {len(missing)} tensors missing, such as {missing[0]}", f"the folder must hold {self.fmt.kind} weights"
            )

    @torch.no_grad()
    def score(self, ids: Sequence[int]) -> tuple[float, ...]:
        """Return the log-probabilities of ids[1:] given what precedes each, temperature 1: one forward pass without a cache."""
        row = torch.tensor([list(ids)], device=self.device)
        logits = self.model(input_ids=row, use_cache=False).logits[0, :-1].float()
        return tuple(logits.log_softmax(-1).gather(-1, row[0, 1:, None])[:, 0].tolist())

    def held(self) -> Iterator[NamedTensor]:
        """Yield the values the model computes with, one per checkpoint tensor, under its name."""
        for slot in {slot.name: slot for slot, _ in self._slot_of.values()}.values():
            yield NamedTensor(slot.name, slot.read())

    def take_over(self, items: Iterable[tuple[str, Tensor]]) -> None:
        """Take values another model of this kind held; raises UserError for a tensor this one does not have."""
        by_name = {slot.name: (slot, names) for slot, names in self._slot_of.values()}
        for name, tensor in items:
            if name not in by_name:
                raise UserError(f"tensor {name}: not in a {self.fmt.kind} {self.shape.architecture}", "engines of one run are alike")
            slot, names = by_name[name]
            slot.write(tensor)
            self._missing.difference_update(names)

    def _keep(self, touched: set[str]) -> None:
        """Own the memory of weights whose other parts are still to come."""
        for name in touched & self._partial.keys():
            self._partial[name] = {part: tensor.clone() for part, tensor in self._partial[name].items()}


def _value(name: str, tensor: Tensor, slot: WeightSlot) -> Tensor:
    """Return an unquantised tensor as the engine computes with it: rounded to BF16, router correction biases untouched."""
    if not tensor.is_floating_point() or tensor.element_size() < 2:
        raise UserError(f"tensor {name}: found {str(tensor.dtype).removeprefix('torch.')}, needs bfloat16, float16 or float32")
    return tensor if slot.is_buffer else tensor.to(torch.bfloat16)
