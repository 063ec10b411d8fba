"""Which parts of a model a conversion is felt in: each part in turn left at the source's weights, on some of the texts."""

from collections.abc import Sequence
from typing import Literal

from lprl_api.wire.answers import Distance, PartSensitivity, Sensitivity
from lprl_workload.compare.passes import Mix
from lprl_workload.compare.sides import PARTS, Side
from lprl_workload.compare.tally import Tally
from lprl_workload.compare.texts import Text

Name = Literal["layer", "attention", "mlp"]
NAMES: dict[str, Name] = {"self_attn": "attention", "mlp": "mlp"}


def sample(texts: Sequence[Text], count: int) -> list[Text]:
    """Return `count` texts evenly spread over the file; all where there are no more."""
    if count >= len(texts):
        return list(texts)
    return [texts[i * len(texts) // count] for i in range(count)]


def part_mixes(converted: Side) -> list[Mix]:
    """Return the mixes to run: of every layer with quantised weights the whole layer, and its parts where both are quantised."""
    found: list[Mix] = []
    for layer in range(converted.layers):
        parts = [(layer, part) for part in PARTS if converted.holds_quantized(layer, part)]
        if len(parts) > 1:
            found.append(frozenset(parts))
        found += [frozenset([part]) for part in parts]
    return found


def pattern(mix: Mix) -> str:
    """Return the pattern of the modules of one layer or one of its parts, as `--exclude` takes it."""
    layer = min(layer for layer, _ in mix)
    return f"model.layers.{layer}.*" if len(mix) > 1 else f"model.layers.{layer}.{min(part for _, part in mix)}.*"


def sensitivity(texts: int, mixes: Sequence[Mix], tallies: Sequence[Tally]) -> Sensitivity:
    """Return the result of a pass over (the converted model, *mixes)."""
    whole = tallies[0].distance().kl_mean
    parts = [_part(mix, tally.distance(), whole) for mix, tally in zip(mixes, tallies[1:], strict=True)]
    return Sensitivity(texts=texts, kl_mean=whole, parts=tuple(parts))


def _part(mix: Mix, distance: Distance, whole: float) -> PartSensitivity:
    (layer, part), *more = sorted(mix)
    name: Name = "layer" if more else NAMES[part]
    recovered = 1 - distance.kl_mean / whole if whole > 0 else 0.0
    return PartSensitivity(layer=layer, part=name, modules=pattern(mix), kl_mean=distance.kl_mean, recovered=recovered)
