"""Rules on formats an engine of this layout cannot serve (servable.py): told before anything is converted, with what fits."""

from collections.abc import Iterator

from lprl_api.catalog.servable import Unservable, servable_tensors, servable_without, unservable
from lprl_api.field_error import FieldError, wrong
from lprl_api.model.formats import Bf16, Fp8Block, Int4Group, WeightFormat
from lprl_api.model.model_shape import ModelShape
from lprl_api.model.weights import all_weights, selects
from lprl_api.rules.case import Case, Rule
from lprl_api.spec.precision import Scope


def engine_tensor_path(case: Case) -> str:
    """Return the field that decides an engine's tensor-parallel size."""
    return "topology.rollout.tensor" if case.spec.topology.rollout.tensor else "topology.rollout.gpusPerEngine"


def _servable(case: Case) -> Iterator[FieldError]:
    shape = case.shape
    if shape is None or not case.sglang:
        return
    fmt, tensor, expert = case.rollout_format(shape), case.engine_tensor, case.spec.topology.rollout.expert
    if _told_elsewhere(shape, fmt) or shape.heads % tensor or tensor % expert:
        return
    found = unservable(shape, fmt, tensor, expert)
    if not found:
        return
    groups = [e for e in range(1, tensor + 1) if shape.moe and tensor % e == 0 and shape.moe.experts % e == 0]
    if experts := [e for e in groups if not unservable(shape, fmt, tensor, e)]:
        yield wrong("topology.rollout.expert", expert, f"one of {', '.join(map(str, experts))}: {found[0]}")
    elif tensors := servable_tensors(shape, fmt, tensor - 1, expert):
        yield wrong(engine_tensor_path(case), tensor, f"{' or '.join(map(str, tensors))}: {found[0]}")
    else:
        yield _no_layout(case, shape, fmt, found)


def _told_elsewhere(shape: ModelShape, fmt: WeightFormat) -> bool:
    """Whether rules_precision refuses the format for another reason: dense INT4, or groups that divide nothing."""
    if not isinstance(fmt, Int4Group):
        return False
    split = any(weight.cols % fmt.group_size and selects(fmt, module, weight) for module, weight in all_weights(shape))
    return fmt.scope is Scope.ALL_LINEAR or split


def _no_layout(case: Case, shape: ModelShape, fmt: WeightFormat, found: tuple[Unservable, ...]) -> FieldError:
    tensor, expert = case.engine_tensor, case.spec.topology.rollout.expert
    more = f", and {len(found) - 1} more" if len(found) > 1 else ""
    other = f"precision.rollout bf16, or backends.rollout torch: sglang cannot serve {fmt.kind}: {found[0]}{more}"
    if isinstance(fmt, Int4Group):
        fits = [size for size in (128, 64, 32) if not unservable(shape, fmt.model_copy(update={"group_size": size}), tensor, expert)]
        if fits:
            return wrong("precision.int4.groupSize", fmt.group_size, f"{' or '.join(map(str, fits))}; or {other}")
    if not isinstance(fmt, Bf16) and (patterns := servable_without(shape, fmt, tensor, expert)):
        other = f"{', '.join(patterns)} in precision.excludeModules; or {other}"
    if isinstance(fmt, Fp8Block) and shape.family == "llama":
        other += "; FP8 by channel is served from a folder (lprl convert --to fp8-channel), but takes no weight updates"
    return wrong("precision.rollout", case.spec.precision.rollout, other)


RULES: tuple[Rule, ...] = (_servable,)
