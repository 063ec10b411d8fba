"""What follows from the figures: words, each with a number that was measured. Thresholds are from a real model.

SmolLM2-135M-Instruct, mean KL in nats: see docs/precision-guide.md.
"""

from collections.abc import Sequence

from lprl_api.model.formats import Int4Group, WeightFormat
from lprl_api.wire.answers import Advice, Distance, Sensitivity
from lprl_workload.compare.passes import Mix
from lprl_workload.compare.sensitivity import pattern
from lprl_workload.compare.sides import PARTS

CLOSE_KL = 0.05
QAT_KL = 0.1
OUTSTANDING = 0.1
TIMES_EVEN = 3.0
MOST_PARTS = 4
WORTH = 0.25


def serve(distance: Distance) -> Advice:
    """Return the advice for a conversion that changes little."""
    text = f"mean KL {distance.kl_mean:.2g} is at most {CLOSE_KL}: the conversion changes little; nothing has to be left out"
    return Advice(kind="serve", text=text)


def outstanding(found: Sensitivity) -> Mix:
    """Return the parts that stand out: each brings back OUTSTANDING of the KL and TIMES_EVEN its even share; at most MOST_PARTS."""
    single = [part for part in found.parts if part.part != "layer"]
    if not single:
        return frozenset()
    least = max(OUTSTANDING, TIMES_EVEN / len(single))
    chosen = sorted((p for p in single if p.recovered >= least), key=lambda p: -p.recovered)[:MOST_PARTS]
    names = {"attention": PARTS[0], "mlp": PARTS[1]}
    mix = frozenset((p.layer, names[p.part]) for p in chosen)
    everything = {(p.layer, names[p.part]) for p in single}
    return frozenset() if mix == everything else mix


def exclude(mix: Mix, distance: Distance, left: float | None) -> Advice:
    """Return what leaving `mix` out is worth; `left` is the mean KL that was measured with it left out."""
    patterns = tuple(pattern(frozenset([part])) for part in sorted(mix))
    if left is None or left > (1 - WORTH) * distance.kl_mean:
        return Advice(kind="none-stands-out", text="no few layers carry the difference: leaving some out would not bring the answers back")
    options = " ".join(f"--exclude '{p}'" for p in patterns)
    text = (
        f"leave out {', '.join(patterns)} (lprl convert {options}; precision.excludeModules): mean KL {distance.kl_mean:.2g} -> {left:.2g}"
    )
    return Advice(kind="exclude", text=text, kl_mean=left, exclude_modules=patterns)


def group(size: int, distance: Distance, left: float) -> Advice:
    """Return what INT4 in smaller groups would leave, as measured."""
    text = f"INT4 in groups of {size} (--group-size {size}; precision.int4.groupSize): mean KL {distance.kl_mean:.2g} -> {left:.2g}"
    return Advice(kind="group-size", text=text, kl_mean=left, group_size=size)


def without_training(fmt: WeightFormat, distance: Distance, given: Sequence[Advice]) -> tuple[Advice, ...]:
    """Return the warning for INT4 that no measured advice brings below QAT_KL."""
    best = min([distance.kl_mean, *(a.kl_mean for a in given if a.kl_mean is not None)])
    if not isinstance(fmt, Int4Group) or best <= QAT_KL:
        return ()
    text = (
        f"do not serve this model in INT4 as it is: mean KL {best:.2g} at best is above {QAT_KL}. Train it for INT4 "
        "(precision.training: int4-qat), or serve FP8 or BF16"
    )
    return (Advice(kind="qat", text=text),)
