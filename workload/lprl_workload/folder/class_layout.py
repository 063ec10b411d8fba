"""Names and layout of a checkpoint from the model's class: what transformers writes for it, and which part of which parameter that is.

The class is built from config.json in its full size on `meta`, which costs no memory. Every parameter is then stood in for by a small
tensor of the same rank whose elements are numbered, and these go through the class's own way to a checkpoint (`save_pretrained`'s
reverse conversion). Each checkpoint tensor is read back as a strided view of exactly one parameter: names, the split of experts,
transposition and packing follow without a table. What is no such view is kept in `unclear` with the reason.

No code of a folder ever runs: classes are transformers' own, `auto_map` is not looked at.
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lprl_workload.folder.class_model import NoClass, build_on_meta, first_line
from lprl_workload.folder.numbered import View, located, numbered, parameter_of

Kind = Literal["linear", "experts", "embedding", "other"]
NUMBERS = 1 << 18
"""Elements numbered at a time, at most: stand-ins shrink by a power of two until a layer has no more."""
_LAYER = re.compile(r"^(.*?\.\d+)\.")


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter (or persistent buffer) of the class."""

    shape: tuple[int, ...]
    kind: Kind
    transposed: bool | None = False
    """Of experts: stored [experts, in, out]; None where the class does not say."""
    floating: bool = True
    """Whether it holds numbers, not indices or flags."""


@dataclass(frozen=True)
class ClassLayout:
    """The checkpoint of a class."""

    model_class: str
    parameters: Mapping[str, Parameter]
    views: Mapping[str, View]
    """Checkpoint name -> where it lies."""
    unclear: Mapping[str, str]
    """Checkpoint names that are no view of one parameter -> why."""
    embedding: str
    """Checkpoint name of the text model's token embedding."""
    tied: Mapping[str, str]
    """Names of parameters that are another one (a tied head) -> that one's."""
    head: tuple[str, ...]
    """Checkpoint names of the output embeddings, where they are tensors of their own."""
    plain: bool
    """Whether it is a language model and nothing else, so that its checkpoint has no other tensors."""
    layers: int
    experts: int
    """Routed experts of a layer; 0 without."""
    unread: tuple[str, ...]
    """Regular expressions of tensors that the class passes over (multi-token prediction)."""


def layout_of(document: Mapping[str, Any]) -> ClassLayout:
    """Return the checkpoint layout of a config.json's class. Raises NoClass, also for a class without a token embedding."""
    model = build_on_meta(document)
    state, tied = _state(model)
    parameters = {name: _parameter(model, name, tensor) for name, tensor in state.items()}
    scale = _scale(parameters)
    last: Exception = NoClass("no scale")
    for smaller in (scale, max(1, scale // 2), max(1, scale // 4)):
        try:
            views, unclear = _read_back(model, parameters, smaller)
            break
        except Exception as error:  # whatever a conversion raises where sizes of stand-ins do not add up
            last = error
    else:
        raise NoClass(f"{type(model).__name__}: its checkpoint cannot be derived ({first_line(last)})") from last
    text = model.config.get_text_config()
    return ClassLayout(
        model_class=type(model).__name__,
        parameters=parameters,
        views=views,
        unclear=unclear,
        embedding=_embedding(model, views),
        tied=tied,
        head=_head(model, views),
        plain=text is model.config,
        layers=int(getattr(text, "num_hidden_layers", 0) or 0),
        experts=max((p.shape[0] for p in parameters.values() if p.kind == "experts"), default=_module_experts(model)),
        unread=tuple(getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ()),
    )


def _state(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return (the tensors of a checkpoint by parameter name, names that share another's -> that one's)."""
    found: dict[str, Tensor] = {}
    seen: dict[int, str] = {}
    tied: dict[str, str] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if isinstance(tensor, nn.Parameter) and id(tensor) in seen:
            tied[name] = seen[id(tensor)]
            continue
        seen[id(tensor)] = name
        found[name] = tensor
    return found, tied


def _parameter(model: Any, name: str, tensor: Tensor) -> Parameter:
    owner_name, _, leaf = name.rpartition(".")
    owner = model.get_submodule(owner_name)
    kind: Kind = "other"
    transposed: bool | None = False
    if isinstance(owner, nn.Linear) and leaf == "weight":
        kind = "linear"
    elif isinstance(owner, nn.Embedding):
        kind = "embedding"
    elif tensor.ndim == 3 and not isinstance(owner, nn.modules.conv._ConvNd) and "expert" in f"{name}.{type(owner).__name__}".lower():
        kind, transposed = "experts", _transposed(owner, leaf, model.config.get_text_config())
    return Parameter(tuple(tensor.shape), kind, transposed, tensor.is_floating_point())


def _transposed(owner: nn.Module, leaf: str, text: Any) -> bool | None:
    """Return whether experts are stored [experts, in, out], as the class says; None where it does not.

    By its own word where it has one; else one more such module is made of twice the hidden size, and the axis that has grown tells.
    """
    said = getattr(owner, "is_transposed", None)
    if isinstance(said, bool):
        return said
    own = tuple(getattr(owner, leaf).shape)
    grown = _grown(owner, text)
    other = tuple(getattr(grown, leaf).shape) if grown is not None and hasattr(grown, leaf) else own
    changed = [axis for axis, (a, b) in enumerate(zip(own, other, strict=True)) if a != b]
    if changed not in ([1], [2]):
        return None
    returns_hidden = leaf in ("weight", "down_proj", "w2", "down") or "down" in leaf
    return (changed == [2]) == returns_hidden


def _grown(owner: nn.Module, text: Any) -> nn.Module | None:
    """Return a module like `owner` whose outputs (of those that know only sizes), or else whose hidden size, are twice as wide."""
    if all(hasattr(owner, name) for name in ("num_experts", "input_size", "output_size")):
        attempts: list[tuple[Any, ...]] = [(owner.num_experts, owner.input_size, 2 * int(owner.output_size))]  # type: ignore[arg-type]
    else:
        wide = deepcopy(text)
        wide.hidden_size = 2 * text.hidden_size
        attempts = [(wide,), (wide, 0)]
    for arguments in attempts:
        with suppress(Exception), torch.device("meta"):
            return type(owner)(*arguments)
    return None


def _module_experts(model: nn.Module) -> int:
    """Return the number of routed experts that are modules of their own; 0 without."""
    lists = (len(module) for name, module in model.named_modules() if name.endswith(".experts") and isinstance(module, nn.ModuleList))
    return max(lists, default=0)


def _scale(parameters: Mapping[str, Parameter]) -> int:
    """Return the power of two by which axes shrink: the least by which no layer has more than NUMBERS elements, or the best there is."""
    best, least = 1, 0
    for power in range(13):
        sizes: dict[str, int] = {}
        for name, parameter in parameters.items():
            sizes[_group(name)] = sizes.get(_group(name), 0) + prod(_small(parameter, 1 << power))
        most = max(sizes.values(), default=0)
        if not power or most < least:
            best, least = 1 << power, most
        if most <= NUMBERS:
            break
    return best


def _small(parameter: Parameter, scale: int) -> tuple[int, ...]:
    """Return a stand-in's shape: experts are counted, so their axis stays; other axes shrink where both halves of them can."""
    keep = 1 if parameter.kind == "experts" else 0
    return tuple(size if axis < keep or size % (2 * scale) else size // scale for axis, size in enumerate(parameter.shape))


def _group(name: str) -> str:
    found = _LAYER.match(name)
    return found[1] if found else ""


def _read_back(model: Any, parameters: Mapping[str, Parameter], scale: int) -> tuple[dict[str, View], dict[str, str]]:
    """Number all elements and send them through the class's own conversion, layer by layer; returns (views, what is none)."""
    from transformers.core_model_loading import revert_weight_conversion

    names = list(parameters)
    groups: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        _set(model, name, torch.empty(_small(parameters[name], scale), dtype=torch.int64, device="meta"))
        groups.setdefault(_group(name), []).append(number)
    views: dict[str, View] = {}
    unclear: dict[str, str] = {}
    for numbers in groups.values():
        stand_ins = {names[number]: numbered(number, _small(parameters[names[number]], scale)) for number in numbers}
        for name, tensor in revert_weight_conversion(model, dict(stand_ins)).items():
            origin = names[parameter_of(tensor)]
            found = located(tensor, origin, parameters[origin].shape, stand_ins[origin]) if tensor.numel() else "it is empty"
            if isinstance(found, View):
                views[name] = found
            else:
                unclear[name] = found
    return views, unclear


def _set(model: nn.Module, name: str, value: Tensor) -> None:
    """Put a stand-in where a parameter was: conversions ask the model for sizes."""
    owner_name, _, leaf = name.rpartition(".")
    owner = model.get_submodule(owner_name)
    if leaf in owner._parameters:
        owner._parameters[leaf] = nn.Parameter(value, requires_grad=False)
    else:
        owner._buffers[leaf] = value


def _embedding(model: Any, views: Mapping[str, View]) -> str:
    """Return the checkpoint name of the token embedding. Raises NoClass without one."""
    try:
        module = model.get_input_embeddings()
    except (NotImplementedError, AttributeError) as error:
        raise NoClass(f"{type(model).__name__} has no token embedding") from error
    own = next((name for name, found in model.named_modules() if found is module), None)
    for name, view in views.items():
        if own is not None and view.parameter.startswith(f"{own}.") and len(view.shape) == 2:
            return name
    raise NoClass(f"{type(model).__name__} has no token embedding in its checkpoint")


def _head(model: Any, views: Mapping[str, View]) -> tuple[str, ...]:
    """Return the checkpoint names of the output embeddings; none where the class has none, or they are tied."""
    try:
        module = model.get_output_embeddings()
    except (NotImplementedError, AttributeError):
        return ()
    own = next((name for name, found in model.named_modules() if found is module), None)
    return () if own is None else tuple(name for name, view in views.items() if view.parameter.startswith(f"{own}."))


@cache
def layout_of_text(text: str) -> ClassLayout | str:
    """Return the layout of a config.json given as text, or why there is none; remembered, because a conversion asks several times."""
    try:
        return layout_of(json.loads(text))
    except NoClass as error:
        return str(error)


def expert_views(layout: ClassLayout, parameter: str) -> Iterator[tuple[str, View]]:
    """Yield the checkpoint tensors that are parts of a parameter, in the order in which they lie in it."""
    parts = [(name, view) for name, view in layout.views.items() if view.parameter == parameter]
    yield from sorted(parts, key=lambda part: tuple(i if isinstance(i, int) else i.start for i in part[1].index))
