"""Where the tensors of a class's checkpoint lie in its parameters, for trainers and engines: whole, some rows, or one expert's rows."""

from collections.abc import Iterator
from math import prod

from torch import Tensor

from lprl_api.errors import UserError
from lprl_workload.folder.class_layout import ClassLayout
from lprl_workload.folder.contents import FolderContents
from lprl_workload.folder.numbered import View

GATE_UP = ".experts.gate_up_proj"
Index = tuple[int | slice, ...]


def places(layout: ClassLayout) -> Iterator[tuple[str, str, Index, tuple[int, ...]]]:
    """Yield (checkpoint name, parameter, where it lies in it, shape) of every tensor.

    Where: () is all of the parameter, (rows,) some of its rows, (experts, rows) the same rows of all experts, else an expert's number
    and perhaps rows of its matrix.
    Raises UserError for another layout.
    """
    for name, why in layout.unclear.items():
        raise UserError(f"tensor {name}: not one parameter of {layout.model_class}: {why}", "this model cannot be trained here")
    for name, view in layout.views.items():
        yield name, view.parameter, _index(name, view, layout), view.shape


def _index(name: str, view: View, layout: ClassLayout) -> Index:
    whole = layout.parameters[view.parameter].shape
    if view.whole and view.shape == whole:
        return ()
    halves = 2 if view.parameter.endswith(GATE_UP) else 1
    if view.axes == (1, 2) and len(view.index) == 3 and isinstance(view.index[0], int):
        rows, cols = view.index[1], view.index[2]
        if isinstance(rows, slice) and cols == slice(0, whole[2], 1) and rows.step == 1 and view.shape[0] * halves == whole[1]:
            return (view.index[0],) if halves == 1 else (view.index[0], slice(rows.start, rows.stop))
    if view.axes == tuple(range(len(whole))) and all(isinstance(part, slice) and part.step == 1 for part in view.index):
        found = tuple(slice(part.start, part.stop) for part in view.index if isinstance(part, slice))
        kept = [part == slice(0, size) for part, size in zip(found, whole, strict=True)]
        if all(kept[1:]):
            return found[:1]
        if len(whole) == 3 and halves == 2 and kept[0] and kept[2] and view.shape[1] * 2 == whole[1]:
            return found[:2]
    what = f"tensor {name}: lies in {view.parameter} of {layout.model_class} in a way no trainer here knows"
    raise UserError(what, "lprl convert takes this model, and lprl plan --config")


def as_published(contents: FolderContents, name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Yield a tensor of a folder under the names its class publishes: itself, or the matrices of experts kept as in memory (views)."""
    parts = contents.ruled.fused.get(name) if contents.ruled is not None else None
    if parts is None:
        yield name, tensor
        return
    for part in parts:
        yield part.name, tensor.reshape(-1)[part.first : part.first + prod(part.shape)].view(part.shape)
