"""Which weights of a model a format covers, and the arithmetic that follows from it."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import nn

from lprl_api.errors import UserError
from lprl_api.model.formats import Bf16, WeightFormat
from lprl_api.model.model_shape import ModelShape
from lprl_workload.hf.activations import InputQuantizer
from lprl_workload.hf.chosen import chosen_of
from lprl_workload.hf.experts import DOWN_GROUP, GATE_UP_GROUP, uses_ours
from lprl_workload.hf.slots import GATE_UP, WeightSlot


def selected_slots(slots: Sequence[WeightSlot], fmt: WeightFormat, shape: ModelShape, folder: Path) -> frozenset[str]:
    """Return the checkpoint names of a folder's model that `fmt` quantises; see selected_names."""
    return selected_names({slot.name: slot.shape for slot in slots}, fmt, shape, folder)


def selected_names(tensors: Mapping[str, tuple[int, ...]], fmt: WeightFormat, shape: ModelShape, folder: Path) -> frozenset[str]:
    """Return which tensors (shapes by name) of a folder's model `fmt` quantises; empty for bf16.

    Raises UserError when a format selects nothing.
    """
    if isinstance(fmt, Bf16):
        return frozenset()
    selection = chosen_of(folder, fmt, shape)
    names = frozenset(name for name, size in tensors.items() if selection.selects(name, size))
    if not names:
        raise UserError(
            f"precision: {fmt.kind} with these scope and excludeModules selects no tensor of {shape.architecture}",
            "widen the scope, or shorten excludeModules",
        )
    return names


def emulate_activations(model: nn.Module, slots: Sequence[WeightSlot], selected: frozenset[str], fmt: WeightFormat) -> None:
    """Make every layer with FP8 weights fake-quantise its input, in place.

    Raises UserError when excludeModules splits the experts of one layer, which share one product.
    """
    group = fmt.activation_group
    if group is None:
        return
    quantizer = InputQuantizer(group)
    # The decoder, not the whole model: the trainer calls it without the output head.
    model.get_submodule("model").register_forward_hook(quantizer.forget)
    by_parameter: dict[str, set[bool]] = defaultdict(set)
    for slot in slots:
        by_parameter[slot.parameter].add(slot.name in selected)
    for parameter, choices in by_parameter.items():
        if len(choices) > 1:
            raise UserError(
                f"precision.excludeModules: leaves out some experts of {parameter}, which one product computes",
                "exclude all experts of a layer or none",
            )
        if True not in choices:
            continue
        owner = model.get_submodule(parameter.rpartition(".")[0])
        if isinstance(owner, nn.Linear):
            owner.register_forward_pre_hook(quantizer)
        elif not uses_ours(owner):
            what = f"{parameter}: its class computes its experts in a way of its own, without FP8 activations"
            raise UserError(what, "take INT4, or weight-only FP8 (precision.fp8.activations: none)")
        else:
            setattr(owner, GATE_UP_GROUP if parameter.endswith(GATE_UP) else DOWN_GROUP, group)
