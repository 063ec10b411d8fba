"""A folder of a model without a table: held against its class where transformers has one, else taken by its index and the rule."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lprl_api.errors import UserError
from lprl_api.model.formats import Bf16, WeightFormat
from lprl_api.model.formats.mxfp4 import Mxfp4
from lprl_workload.folder.architecture import ADAPTER, MERGE, MIXED
from lprl_workload.folder.by_index import UNSAID, held_by_index, weights_of
from lprl_workload.folder.class_layout import ClassLayout, expert_views, layout_of_text
from lprl_workload.folder.config import CONFIG
from lprl_workload.folder.contents import FolderContents
from lprl_workload.folder.files import COMPLETE, shown
from lprl_workload.folder.header import TensorInfo
from lprl_workload.folder.mxfp4 import BLOCKS, check_blocks
from lprl_workload.folder.numbered import View
from lprl_workload.folder.quantized import FLOATS, PARTNERS, check_config_fits, is_codes, logical
from lprl_workload.folder.tied import without_equal
from lprl_workload.quant.rule import Kind, Matrix, Ruled, is_expert, is_linear, place_of

IN_OUT = "its experts are stored [experts, in, out], and transformers reads no codes in that order"
ONE_TENSOR = "{} keeps a layer's experts in one tensor, and transformers reads no codes of single ones for it"


def held_by_rule(contents: FolderContents, config: Mapping[str, Any], fmt: WeightFormat) -> FolderContents:
    """Return what counts of a folder whose family has no table, with the rule's answers and a note on where they come from.

    Raises UserError naming tensors that are missing, misshapen or unknown to the class, and for no text model at all.
    """
    if isinstance(fmt, Mxfp4):
        check_blocks(contents)
    else:
        check_config_fits(contents, fmt)
    found = layout_of_text(json.dumps(dict(config), sort_keys=True))
    if isinstance(found, str):
        return held_by_index(contents, config, fmt, found)
    try:
        return _ByClass(contents, found, fmt).contents()
    except UserError as error:
        if config.get("auto_map"):
            return held_by_index(contents, config, fmt, f"its own code may differ from {found.model_class}: {error.message}")
        raise


def ruled_by_class(layout: ClassLayout) -> Ruled:
    """Return what the rule says of a class's own checkpoint, under the names it has there."""
    tensors = tuple(TensorInfo(name, "BF16", view.shape, 0, 0) for name, view in layout.views.items())
    ruled = _ByClass(FolderContents(Path(layout.model_class), {CONFIG: tensors}), layout, Bf16()).contents().ruled
    assert ruled is not None, "a class has rules"
    return ruled


class _ByClass:
    """One folder against one class."""

    def __init__(self, contents: FolderContents, layout: ClassLayout, fmt: WeightFormat) -> None:
        self._contents, self._layout, self._fmt = contents, layout, fmt
        leaf = layout.embedding.rpartition(".")[0].rpartition(".")[2] + ".weight"
        place = place_of((logical(name) for name in contents.tensors), leaf)
        if place is None:
            first = min(contents.tensors, default="none")
            what = f"{contents.folder}: tensor {first}: a {layout.model_class}'s are called {layout.embedding}"
            raise UserError(what, f"complete the download, or save it as {layout.model_class} with transformers, whose names these are")
        self._place = place
        self._own = layout.embedding.removesuffix(leaf)
        """What the class's checkpoint has before its embedding; the folder has `place.prefix` there."""
        self._parameters = self._of_parameters()
        self._kinds: dict[str, Kind] = {}
        self._refused: dict[str, str] = {}
        self._fused: dict[str, tuple[Matrix, ...]] = {}
        self._called: dict[str, str] = {}
        self._unknown: list[str] = []
        self._found: set[str] = set()
        self._ties: dict[str, str] = {}
        """Tensor of the folder -> the one that the class has in its place."""

    def contents(self) -> FolderContents:
        """Return the folder's contents with the rule's answers."""
        for tensor, name, shape in weights_of(self._contents, self._fmt):
            if name.startswith(self._place.prefix):
                self._tensor(tensor, name, shape)
            else:
                self._outside(tensor, name, shape)
        self._check_unknown()
        self._check_missing()
        ruled = Ruled(
            self._layout.model_class,
            "class",
            self._place,
            self._layout.layers,
            self._layout.experts,
            self._kinds,
            self._fused,
            self._refused,
            self._called,
            self._own,
        )
        return replace(self._without_ties(), ruled=ruled)

    def _of_parameters(self) -> dict[str, str]:
        """Return name in a folder -> parameter, for the forms transformers keeps in memory."""
        embedding = self._layout.views[self._layout.embedding].parameter
        prefix = embedding.removesuffix(f"{self._layout.embedding.removeprefix(self._own)}")
        within = (name for name in self._layout.parameters if name.startswith(prefix))
        return {self._place.prefix + name.removeprefix(prefix): name for name in within}

    def _tensor(self, tensor: TensorInfo, name: str, shape: tuple[int, ...]) -> None:
        own = self._own + name.removeprefix(self._place.prefix)
        view = self._layout.views.get(own)
        layer = self._place.layer(name)
        if view is not None:
            self._take(tensor, shape, own, view)
            if layer is not None:
                self._classify(name, view)
        elif own in self._layout.unclear:
            self._note_found(tensor, own)
            if layer is not None and len(shape) == 2 and is_linear(name.removesuffix(".weight"), shape[0], shape[1]):
                self._refused[name] = f"not one parameter of {self._layout.model_class}: {self._layout.unclear[own]}"
        elif name in self._parameters:
            self._in_memory_form(tensor, name, shape)
        elif layer is not None and layer >= self._layout.layers:
            self._further(name, shape)
        elif not self._passed_over(name, own):
            self._unknown.append(tensor.name)

    def _outside(self, tensor: TensorInfo, name: str, shape: tuple[int, ...]) -> None:
        """Take what is not the text model's: of a plain language model its head alone, of others whatever is no training tool's."""
        view = self._layout.views.get(name) if self._alike else None
        if view is not None:
            self._take(tensor, shape, name, view)
        elif self._tied_to(tensor.name, name) or name.startswith("mtp."):
            return
        elif ADAPTER.search(name) or (self._layout.plain and self._alike and not self._passed_over(tensor.name, name)):
            self._unknown.append(tensor.name)

    @property
    def _alike(self) -> bool:
        """Whether the folder calls its text model what the class does, so that other names are the class's as well."""
        return self._own == self._place.prefix

    def _take(self, tensor: TensorInfo, shape: tuple[int, ...], own: str, view: View) -> None:
        self._check_shape(tensor, shape, view.shape)
        self._check_dtype(tensor, view.parameter)
        self._note_found(tensor, own)

    def _note_found(self, tensor: TensorInfo, own: str) -> None:
        if own in self._found:
            where = f"{self._contents.path(tensor.name)}: tensor {tensor.name}"
            raise UserError(f"{where}: {own} is stored twice, in two forms", MIXED)
        self._found.add(own)

    def _check_dtype(self, tensor: TensorInfo, parameter: str) -> None:
        coded = is_codes(tensor) or (isinstance(self._fmt, Mxfp4) and tensor.name.endswith(BLOCKS))
        if self._layout.parameters[parameter].floating and not coded and tensor.dtype not in FLOATS:
            found = f"{self._contents.path(tensor.name)}: tensor {tensor.name}: dtype {tensor.dtype}"
            what = f"{found}; needs {', '.join(FLOATS)} with this config.json"
            raise UserError(what, "save the model in bfloat16, or restore the quantization_config it was published with")

    def _check_shape(self, tensor: TensorInfo, found: tuple[int, ...], wanted: tuple[int, ...]) -> None:
        if tuple(found) != tuple(wanted):
            where = f"{self._contents.path(tensor.name)}: tensor {tensor.name}"
            what = f"{where}: shape {list(found)}; {self._layout.model_class} of config.json has {list(wanted)}"
            raise UserError(what, MIXED)

    def _classify(self, name: str, view: View) -> None:
        """Note what the class says of a tensor in a decoder layer."""
        parameter = self._layout.parameters[view.parameter]
        module = name.removesuffix(".weight")
        if parameter.kind == "linear" and len(view.shape) == 2:
            routed = is_expert(name)
            if routed or is_linear(module, view.shape[0], view.shape[1], self._layout.experts):
                if view.axes == (0, 1):
                    self._kinds[name] = "routed" if routed else "linear"
                else:
                    self._refused[name] = f"{self._layout.model_class} stores it [in, out]"
            self._note_name(module, view.parameter)
        elif parameter.kind == "experts":
            self._expert(name, view, parameter.transposed)

    def _note_name(self, module: str, parameter: str) -> None:
        embedding = self._layout.views[self._layout.embedding].parameter
        prefix = embedding.removesuffix(self._layout.embedding.removeprefix(self._own))
        called = self._place.prefix + parameter.removeprefix(prefix).removesuffix(".weight")
        if parameter.startswith(prefix) and called != module:
            self._called[module] = called

    def _expert(self, name: str, view: View, transposed: bool | None) -> None:
        if transposed is None:
            self._refused[name] = UNSAID
        elif len(view.shape) == 3:
            self._refused[name] = IN_OUT if transposed else ONE_TENSOR.format(self._layout.model_class)
        elif len(view.shape) == 2 and name.endswith(".weight"):
            if (view.axes == (1, 2)) != transposed:
                self._kinds[name] = "routed"
            else:
                self._refused[name] = IN_OUT

    def _in_memory_form(self, tensor: TensorInfo, name: str, shape: tuple[int, ...]) -> None:
        """Take a parameter as it is in memory: its checkpoint tensors lie in it one behind the other, or it stays as it is."""
        own = self._parameters[name]
        parameter = self._layout.parameters[own]
        self._check_shape(tensor, shape, parameter.shape)
        self._check_dtype(tensor, own)
        parts = list(expert_views(self._layout, own))
        for part, _ in parts:
            self._note_found(tensor, part)
        if len(parts) == 1 and parts[0][1].whole:
            published = self._place.prefix + parts[0][0].removeprefix(self._own)
            self._fused[name] = (Matrix(published, parameter.shape, 0),)
            if self._place.layer(published) is not None:
                self._classify(published, parts[0][1])
            return
        if self._place.layer(name) is None:
            return
        if parameter.kind != "experts":
            if len(shape) == 2 and is_linear(name.removesuffix(".weight"), shape[0], shape[1], self._layout.experts):
                self._refused[name] = f"published under other names ({parts[0][0] if parts else 'none'})"
            return
        matrices = [self._matrix(part, view, parameter.shape) for part, view in parts]
        ends = [math.prod(m.shape) + m.first for m in matrices if m is not None]
        whole = all(m is not None for m in matrices) and ends == [m.first for m in matrices[1:] if m] + [math.prod(parameter.shape)]
        if parameter.transposed is not False or not whole:
            self._refused[name] = UNSAID if parameter.transposed is None else IN_OUT
            return
        self._fused[name] = tuple(m for m in matrices if m is not None)
        self._kinds |= dict.fromkeys((m.name for m in self._fused[name]), "routed")

    def _matrix(self, part: str, view: View, shape: tuple[int, ...]) -> Matrix | None:
        """Return a checkpoint tensor as rows of its parameter, None where they are not next to each other."""
        if view.axes != (1, 2) or len(view.index) != 3:
            return None
        expert, rows, cols = view.index
        if not isinstance(expert, int) or isinstance(rows, int) or isinstance(cols, int):
            return None
        if rows.step != 1 or (cols.start, cols.stop, cols.step) != (0, shape[2], 1) or not part.endswith(".weight"):
            return None
        name = self._place.prefix + part.removeprefix(self._own)
        return Matrix(name, (view.shape[0], view.shape[1]), (expert * shape[1] + rows.start) * shape[2])

    def _further(self, name: str, shape: tuple[int, ...]) -> None:
        """Take a layer beyond the decoder's (multi-token prediction), which the class has not, by the rule."""
        if len(shape) != 2 or not name.endswith(".weight"):
            return
        if is_expert(name):
            self._kinds[name] = "routed"
        elif is_linear(name.removesuffix(".weight"), shape[0], shape[1], self._layout.experts):
            self._kinds[name] = "linear"

    def _passed_over(self, name: str, own: str) -> bool:
        """Return whether the class itself passes over a tensor, or computes it, or ties it to another."""
        computed = re.search(r"rotary_emb\.|inv_freq$|_scale$|\.num_batches_tracked$", name) and own.rpartition(".")[2] not in PARTNERS
        return bool(computed) or self._tied_to(name, own) or any(re.search(pattern, own) for pattern in self._layout.unread)

    def _tied_to(self, name: str, own: str) -> bool:
        """Note what a tensor of the folder is tied to; returns whether it is."""
        source = next((source for tied, source in self._layout.tied.items() if own == tied or own.endswith(f".{tied}")), None)
        called = next((n for n, view in self._layout.views.items() if view.parameter == source), None)
        if source is None:
            return False
        if called is not None:
            self._ties[name] = self._place.prefix + called.removeprefix(self._own) if called.startswith(self._own) else called
        return True

    def _without_ties(self) -> FolderContents:
        """Return the contents without copies of tied tensors. Raises UserError where one is another tensor than what it is tied to."""
        contents = self._contents
        for name, source in self._ties.items():
            if name in contents.tensors and source in contents.tensors:
                contents = without_equal(contents, name, source)
        return contents

    def _check_unknown(self) -> None:
        if self._unknown:
            first = self._unknown[0]
            what = f"{self._contents.path(first)}: tensor {first} is not in a {self._layout.model_class} of this config.json"
            more = f" (nor are {len(self._unknown) - 1} more)" if len(self._unknown) > 1 else ""
            raise UserError(what + more, MERGE if ADAPTER.search(first) else f"{MIXED}; or save the model without it")

    def _check_missing(self) -> None:
        """Refuse a text model that is not whole; what lies outside of it is copied as it is found."""
        there = {logical(name) for name in self._contents.tensors}
        missing = [n for n in self._layout.views if n.startswith(self._own) and n not in self._found]
        outside = [n for n in self._layout.views if not n.startswith(self._own)]
        if self._layout.plain and self._alike:
            missing += [n for n in outside if n not in self._found]
        else:  # other models call the same head by the end of its name
            ends = {n: ".".join(n.split(".")[-2:]) for n in outside if n in self._layout.head}
            missing += [n for n, end in ends.items() if not any(found == end or found.endswith(f".{end}") for found in there)]
        if missing:
            count = "1 tensor" if len(missing) == 1 else f"{len(missing)} tensors"
            names = shown(self._place.prefix + n.removeprefix(self._own) if n.startswith(self._own) else n for n in missing)
            raise UserError(f"{self._contents.folder}: {count} missing: {names}", COMPLETE)
