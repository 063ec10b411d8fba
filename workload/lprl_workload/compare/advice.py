"""What follows from the figures: words, each with a number that was measured. Thresholds are from a real model.

SmolLM2-135M-Instruct on 51 of its own answers, mean KL in nats a token; docs/precision-guide.md has the table.
"""

from collections.abc import Sequence

from lprl_api.model.formats import WeightFormat
from lprl_api.wire.answers import Advice, Distance, Sensitivity
from lprl_workload.compare.passes import Mix
from lprl_workload.compare.sensitivity import pattern
from lprl_workload.compare.sides import PARTS

CLOSE_KL = 0.05
"""Up to here a conversion changes little: above FP8 of the measured model, a tenth of its INT4."""
QAT_KL = 0.1
"""INT4 further away than this is not to be served without training for it; measured 0.58 in groups of 64, 0.47 in groups of 32."""
OUTSTANDING = 0.1
"""Share of the KL that a part alone must bring back to be named; the measured model's largest is 0.15, of its last MLP."""
TIMES_EVEN = 3.0
"""The same against its even share: 1 / parts of models with few layers is large."""
MOST_PARTS = 4
"""Parts named at most: leaving out more is another format."""
WORTH = 0.25
"""Share that the named parts must bring back together, as measured; the measured model's last MLP brings back less and is not advised."""


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
    if not fmt.coarse or best <= QAT_KL:
        return ()
    text = (
        f"do not serve this model in INT4 as it is: mean KL {best:.2g} at best is above {QAT_KL}. Train it for INT4 "
        "(precision.training: int4-qat), or serve FP8 or BF16"
    )
    return (Advice(kind="qat", text=text),)
