"""FP32 master weights, their gradients and AdamW, beside the low-precision weights the forward pass uses.

    master (float32) --refresh--> forward weight: bf16(master), fake-quantised where the training format selects it
    gradient of the forward weight --straight through--> gradient of the master

Forward weights are computed once per optimizer step, not once per forward pass, so micro-batches share them; because the
gradient is the identity, autograd never has to see the quantiser. Masters lie in two flat buffers (with and without weight
decay): one optimizer call, one all-reduce and one norm each, however many tensors the model has.

A rank may hold only rows [first, last) of a parameter (FSDP2 shards dimension 0); unsharded, that is all rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from lprl_api.derived.residency import TrainPart
from lprl_api.model.formats import WeightFormat
from lprl_api.spec.algorithm import Optimizer
from lprl_workload.hf.slots import GATE_UP
from lprl_workload.process.movement import here
from lprl_workload.quant.rows import fake_quantize_rows
from lprl_workload.quant.scheme import fake_quantize
from lprl_workload.train.group import Group
from lprl_workload.train.parking import Parking

CHUNK_ELEMENTS = 1 << 24
"""Elements quantised at a time: bounds temporary memory for fused expert tensors."""


@dataclass(frozen=True, slots=True)
class Flat:
    """Values, gradients and Adam moments of many parameters, float32 [elements] each."""

    value: nn.Parameter
    grad: Tensor
    moment: Tensor
    second_moment: Tensor

    @classmethod
    def zeros(cls, elements: int, device: torch.device) -> "Flat":
        """Allocate."""
        value, grad, moment, second = (torch.zeros(elements, dtype=torch.float32, device=device) for _ in range(4))
        parameter = nn.Parameter(value)
        parameter.grad = grad
        return cls(parameter, grad, moment, second)


@dataclass(frozen=True, slots=True)
class Master:
    """One parameter's master weight; the tensors are views of a Flat and cover this rank's rows."""

    name: str
    parameter: nn.Parameter
    """Forward weight."""
    quantised: bool
    first: int
    last: int
    value: Tensor
    grad: Tensor
    moment: Tensor
    second_moment: Tensor

    @property
    def sharded(self) -> bool:
        """Whether other ranks hold rows of this parameter."""
        return isinstance(self.parameter, DTensor)


def local(tensor: Tensor) -> Tensor:
    """Return this rank's part of a parameter or gradient, detached."""
    value = tensor.detach()
    return value.to_local() if isinstance(value, DTensor) else value


def first_row(parameter: Tensor, group: Group) -> int:
    """Return the first row of `parameter` this rank holds: FSDP2 cuts dimension 0 into equal chunks, the last ones shorter."""
    if not isinstance(parameter, DTensor):
        return 0
    return min(parameter.shape[0], group.rank * -(-parameter.shape[0] // group.world))


def _add_up_in_float32(parameter: nn.Parameter, grad: Tensor) -> None:
    """Take a gradient of another dtype into the float32 one after each micro-batch, where both lie on one device.

    BF16 gradients of many micro-batches would be added up in BF16, and all be there at once.
    """
    sharded = isinstance(parameter, DTensor)
    if sharded or not parameter.requires_grad or parameter.dtype == torch.float32 or parameter.device != grad.device:
        return

    @torch.no_grad()
    def take(parameter: Tensor) -> None:
        if parameter.grad is not None:
            grad.add_(parameter.grad)
            parameter.grad = None

    parameter.register_post_accumulate_grad_hook(take)  # type: ignore[no-untyped-call]


class Masters:
    """All masters of a model and their optimizer. Rows are zero until `value` is written and `refresh` called."""

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        quantised: frozenset[str],
        fmt: WeightFormat,
        settings: Optimizer,
        group: Group,
        elsewhere: Mapping[str, nn.Parameter] | None = None,
    ) -> None:
        """Make masters of `parameters`; those named in `quantised` are fake-quantised in `fmt`, those without gradients stay as read.

        Of parameters `elsewhere`, whose masters another rank keeps, there are gradients alone.
        """
        self._fmt, self._settings, self._group = fmt, settings, group
        self._device = torch.device("cpu") if settings.cpu_offload else group.device
        self.items: dict[str, Master] = {}
        sizes = {name: p.numel() for name, p in parameters.items()}
        before = dict(zip(sizes, accumulate(sizes.values(), initial=0), strict=False))
        self.places = {name: (before[name], sum(sizes.values())) for name in sizes}
        """Of each parameter: the elements of all parameters before it, and of all there are."""
        decayed = {name: p for name, p in parameters.items() if p.ndim > 1 and p.requires_grad}
        plain = {name: p for name, p in parameters.items() if name not in decayed}
        self._flats = [self._lay_out(chosen, quantised) for chosen in (decayed, plain)]
        decays = (settings.weight_decay, 0.0)
        groups = [{"params": [f.value], "weight_decay": d} for f, d in zip(self._flats, decays, strict=True)]
        others = list((elsewhere or {}).values())
        self._others = torch.zeros(sum(p.numel() for p in others), device=self._device)
        pieces = torch.split(self._others, [p.numel() for p in others])
        self._trained = [
            *((master.parameter, master.grad) for master in self.items.values()),
            *((p, piece.view(p.shape)) for p, piece in zip(others, pieces, strict=True)),
        ]
        """Every parameter, and its float32 gradient."""
        betas = (settings.beta1, settings.beta2)
        self._adam = torch.optim.AdamW(groups, lr=settings.learning_rate, betas=betas, eps=settings.epsilon, fused=True)
        self.restore_steps(0)
        self._parked = self._parking()
        for parameter, grad in self._trained:
            _add_up_in_float32(parameter, grad)

    def _parking(self) -> dict[TrainPart, Parking]:
        """What can leave the device, by part; an optimizer that lives on the host anyway stays where it is."""
        flats, others = (self._flats, [self._others]) if self._device == self._group.device else ([], [])
        forward = [local(master.parameter) for master in self.items.values()]
        return {
            "weights": Parking([*forward, *(flat.value.detach() for flat in flats)]),
            "optimizer": Parking(
                [t for flat in flats for t in (flat.moment, flat.second_moment)], [*(flat.grad for flat in flats), *others]
            ),
        }

    def sleep(self, part: TrainPart) -> None:
        """Give up the device memory of weights or optimizer."""
        self._parked[part].sleep()

    def wake(self, part: TrainPart) -> None:
        """Undo `sleep`."""
        self._parked[part].wake()

    def require(self, *parts: TrainPart) -> None:
        """Raise RuntimeError when one of `parts` sleeps: its memory must not be read."""
        for part in parts:
            if self._parked[part].asleep:
                raise RuntimeError(f"the trainer's {part} sleep: call wake first")

    def _lay_out(self, parameters: Mapping[str, nn.Parameter], quantised: frozenset[str]) -> Flat:
        flat = Flat.zeros(sum(local(p).numel() for p in parameters.values()), self._device)
        offset = 0
        for name, parameter in parameters.items():
            part = local(parameter)
            end = offset + part.numel()
            views = [t.detach()[offset:end].view(part.shape) for t in (flat.value, flat.grad, flat.moment, flat.second_moment)]
            first = first_row(parameter, self._group)
            self.items[name] = Master(name, parameter, name in quantised, first, first + part.shape[0], *views)
            offset = end
        return flat

    @property
    def adam_steps(self) -> int:
        """Updates Adam has counted (its bias correction)."""
        return int(self._adam.state[self._flats[0].value]["step"])

    def restore_steps(self, steps: int) -> None:
        """Set Adam's update count; its moments are the masters' views."""
        for flat in self._flats:
            step = torch.tensor(float(steps), dtype=torch.float32, device=self._device)
            self._adam.state[flat.value] = {"step": step, "exp_avg": flat.moment, "exp_avg_sq": flat.second_moment}

    @torch.no_grad()
    def host_copy(self, master: Master, field: str) -> Tensor:
        """Return a copy of a master's field in host memory; of one that sleeps, what lies there and is not written to again."""
        values: Tensor = getattr(master, field)
        for parking in self._parked.values():
            if (parked := parking.copy_of(values)) is not None:
                return parked
        return values.to("cpu", copy=True)

    @torch.no_grad()
    def refresh(self) -> None:
        """Write every forward weight from its master."""
        for master in self.items.values():
            target = local(master.parameter)
            target.copy_(self._quantised(master) if master.quantised else master.value.to(torch.bfloat16))
            here.tick()

    def _quantised(self, master: Master) -> Tensor:
        if master.value.ndim == 3:
            # Gate and up are two matrices of a fused expert: a block must not span both. Experts are whole on one rank.
            halves = 2 if master.name.endswith(GATE_UP) else 1
            rows = max(1, CHUNK_ELEMENTS // max(1, master.value[0].numel())) if master.value.shape[0] else 1
            parts = [fake_quantize(v.unflatten(1, (halves, -1)), self._fmt).flatten(1, 2) for v in torch.split(master.value, rows)]  # type: ignore[no-untyped-call]
            return torch.cat(parts)
        if not master.sharded:
            return fake_quantize(master.value, self._fmt)
        mine, total = master.value.to(device=self._group.device, dtype=torch.bfloat16), master.parameter.shape[0]
        return fake_quantize_rows(mine, self._fmt, master.first, total, -(-total // self._group.world), self._group.max_)

    def whole(self, master: Master) -> Tensor:
        """Return all rows of a master in BF16, gathered from the ranks that hold them (a collective when sharded)."""
        here.tick()
        rows = master.value.to(device=self._group.device, dtype=torch.bfloat16)
        return self._group.gather_rows(rows, master.parameter.shape[0]) if master.sharded else rows

    def zero_grad(self) -> None:
        """Clear gradients, and let autograd add straight into the float32 ones where dtype and device agree."""
        for grads in (*(flat.grad for flat in self._flats), self._others):
            grads.zero_()
        for parameter, grad in self._trained:
            direct = not isinstance(parameter, DTensor) and parameter.dtype == torch.float32 and parameter.device == grad.device
            parameter.grad = grad if direct else None

    @torch.no_grad()
    def collect(self) -> None:
        """Add gradients autograd left on forward weights (other dtype, device or sharded) to the float32 ones."""
        for parameter, grad in self._trained:
            if parameter.grad is not None and parameter.grad is not grad:
                grad.add_(local(parameter.grad).to(device=self._device, dtype=torch.float32))
                parameter.grad = None

    @torch.no_grad()
    def reduce_and_norm(self, sharded: bool) -> float:
        """Sum gradients over ranks (already done where sharded) and return their global L2 norm."""
        squares = torch.zeros((), dtype=torch.float64, device=self._group.device)
        for flat in self._flats:
            if not sharded and self._group.world > 1:
                on_device = flat.grad.to(self._group.device)
                flat.grad.copy_(self._group.sum_(on_device))
            squares += torch.linalg.vector_norm(flat.grad, dtype=torch.float64).square().to(squares.device)
        return float((self._group.sum_(squares) if sharded else squares).sqrt())

    @torch.no_grad()
    def step(self, rate: float, norm: float) -> None:
        """Clip to the global norm, update the masters and refresh the forward weights."""
        limit = self._settings.gradient_clip
        if limit is not None and norm > limit:
            for flat in self._flats:
                flat.grad.mul_(limit / norm)
        for group in self._adam.param_groups:
            group["lr"] = rate
        self._adam.step()
        self.refresh()
