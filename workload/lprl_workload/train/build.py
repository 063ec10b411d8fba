"""Building the trained model: policy, masters from a Hugging Face folder, FSDP2 sharding."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from lprl_api.errors import UserError
from lprl_api.model.formats import WeightFormat
from lprl_api.model.model_shape import ModelShape
from lprl_api.spec.algorithm import Optimizer
from lprl_workload.hf.arithmetic import emulate_activations, selected_slots
from lprl_workload.hf.folder_weights import published_weights
from lprl_workload.hf.model import build_model
from lprl_workload.hf.naming import has_more
from lprl_workload.hf.slots import WeightSlot, is_known_extra, weight_slots
from lprl_workload.train.group import Group
from lprl_workload.train.masters import Masters, first_row, local
from lprl_workload.train.policy import Policy


@dataclass(frozen=True, slots=True)
class Trained:
    """A policy and what trains it."""

    policy: Policy
    slots: tuple[WeightSlot, ...]
    """Checkpoint tensors; use `name`, `parameter`, `index` (the parameters themselves may be sharded)."""
    masters: Masters
    buffers: dict[str, Tensor]


def build_trained(
    folder: Path, fmt: WeightFormat, shape: ModelShape, settings: Optimizer, group: Group, recompute: bool, shard: bool
) -> Trained:
    """Build the model of `folder` with FP32 masters read from it and forward weights in `fmt`."""
    # Sharding moves one layer at a time to the device; memory of unwritten CPU tensors is never touched.
    model = build_model(folder, shape, "cpu" if shard else group.device)
    slots = weight_slots(model, shape)
    selected = selected_slots(slots, fmt, shape, folder)
    emulate_activations(model, slots, selected, fmt)
    buffers = {slot.name: slot.tensor for slot in slots if slot.is_buffer}
    policy = Policy(model, recompute)
    if shard:
        shard_policy(policy, group)
        buffers = {name: model.get_buffer(name) for name in buffers}
    quantised = frozenset(slot.parameter for slot in slots if slot.name in selected)
    masters = Masters(dict(model.named_parameters()), quantised, fmt, settings, group)
    load_masters(folder, slots, masters, buffers, shape)
    masters.refresh()
    return Trained(policy, slots, masters, buffers)


def shard_policy(policy: Policy, group: Group) -> None:
    """Shard parameters, gradients and optimizer state over the ranks with FSDP2, one unit per decoder layer.

    Forward weights are stored in float32 (they hold BF16 or dequantised values), so that gradients are reduced in float32;
    on a GPU they are gathered and used in BF16.
    """
    device = group.device
    if device.type != "cpu":
        policy.float()
    mesh = init_device_mesh(device.type, (group.world,))
    dtype = None if device.type == "cpu" else torch.bfloat16
    mixed = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for layer in policy.model.model.layers:
        fully_shard(layer, mesh=mesh, mp_policy=mixed)
    fully_shard(policy, mesh=mesh, mp_policy=mixed)
    for module in policy.modules():
        if isinstance(module, FSDPModule):
            # Losses are already shares of the global loss: gradients add up.
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)


@torch.no_grad()
def load_masters(folder: Path, slots: Sequence[WeightSlot], masters: Masters, buffers: dict[str, Tensor], shape: ModelShape) -> None:
    """Fill masters (this rank's rows) and buffers from a folder; raises UserError when a tensor is missing or misshapen."""
    for slot, tensor in read_weights(folder, slots, shape):
        if slot.is_buffer:
            buffers[slot.name].copy_(tensor)
        else:
            master = masters.items[slot.parameter]
            fill(master.value, master.first, slot, tensor)


def read_weights(folder: Path, slots: Sequence[WeightSlot], shape: ModelShape) -> Iterator[tuple[WeightSlot, Tensor]]:
    """Yield every slot once with its tensor of a high-precision folder.

    Raises UserError for a tensor that is unknown, misshapen, quantised, or (at the end) missing.
    """
    by_name = {slot.name: slot for slot in slots}
    missing, more = set(by_name), has_more(folder, shape.family)
    for name, tensor in published_weights(folder, shape):
        slot = by_name.get(name)
        if slot is None:
            if more or is_known_extra(name, shape):
                continue
            raise UserError(
                f"{folder}: tensor {name} is not in a {shape.architecture}", "restore the config.json the model was published with"
            )
        if tuple(tensor.shape) != slot.shape:
            raise UserError(f"{folder}: tensor {name} has shape {list(tensor.shape)}, needs {list(slot.shape)}")
        if not tensor.is_floating_point() or tensor.element_size() < 2:
            remedy = "train from a BF16, FP16 or FP32 folder; the conversion can dequantise this one"
            raise UserError(f"{folder}: tensor {name} is {str(tensor.dtype).removeprefix('torch.')}", remedy)
        missing.discard(name)
        yield slot, tensor
    if missing:
        raise UserError(f"{folder}: {len(missing)} tensors missing, such as {min(missing)}", "copy or download the model folder again")


def fill(target: Tensor, first: int, slot: WeightSlot, tensor: Tensor) -> None:
    """Copy the part of a checkpoint tensor that lies in `target`, the parameter's rows [first, first + len(target))."""
    last = first + target.shape[0]
    if not slot.index:
        target.copy_(tensor[first:last])
        return
    if slot.rows is not None:
        start, stop = slot.rows
        low, high = max(first, start), min(last, stop)
        if low < high:
            target[(slice(low - first, high - first), *slot.index[1:])].copy_(tensor[low - start : high - start])
        return
    expert, *rest = slot.index
    if isinstance(expert, int) and first <= expert < last:
        target[(expert - first, *rest)].copy_(tensor)


@torch.no_grad()
def build_reference(folder: Path, shape: ModelShape, group: Group, shard: bool) -> Policy:
    """Build the frozen KL reference of `folder`: BF16 weights, no quantisation."""
    model = build_model(folder, shape, "cpu" if shard else group.device)
    slots = weight_slots(model, shape)
    policy = Policy(model, recompute=False)
    policy.requires_grad_(False)
    if shard:
        shard_policy(policy, group)
    parameters = dict(model.named_parameters())
    for slot, tensor in read_weights(folder, slots, shape):
        if slot.is_buffer:
            model.get_buffer(slot.name).copy_(tensor)
        else:
            parameter = parameters[slot.parameter]
            fill(local(parameter), first_row(parameter, group), slot, tensor.to(torch.bfloat16))
    return policy.eval()


def set_dropout(model: nn.Module, attention: float) -> None:
    """Set the attention dropout of every layer that has one."""
    for module in model.modules():
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = attention  # type: ignore[assignment]
