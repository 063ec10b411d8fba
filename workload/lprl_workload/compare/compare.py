"""Two folders and a file of texts -> Answers: distance, sensitivity of the parts, and what follows from both."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lprl_api.model.formats import Int4Group
from lprl_api.wire.answers import Advice, Answers, Distance, Sensitivity
from lprl_workload.compare import advice
from lprl_workload.compare.passes import Mix, Pass, run_pass
from lprl_workload.compare.sensitivity import part_mixes, sample, sensitivity
from lprl_workload.compare.sides import Side, check_comparable
from lprl_workload.compare.streams import make_batches
from lprl_workload.compare.texts import Reading, Text, read_texts
from lprl_workload.rollout.tokens import load_tokenizer

OnPass = Callable[[str, int, int], None]
"""Gets (what is run, layer passes done, all of them)."""
SENSITIVITY_TEXTS = 8


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to measure."""

    reading: Reading = field(default_factory=Reading)
    sensitivity_texts: int = SENSITIVITY_TEXTS
    """Texts on which the parts are told apart, at most all; 0 measures the distance only."""
    device: str = "cpu"


def compare_folders(folder: Path, source: Path, prompts: Path, wanted: Wanted, on_pass: OnPass = lambda what, done, total: None) -> Answers:
    """Return how far `folder`'s answers are from `source`'s on the texts of `prompts`.

    Raises UserError for a folder that is no conversion of the source, and for a file of prompts that cannot be read so.
    """
    one, other = Side(source, wanted.device), Side(folder, wanted.device)
    check_comparable(one, other)
    texts, left_out = read_texts(prompts, wanted.reading, load_tokenizer(source), one.shape.max_positions)
    runner = _Runner(one, other, texts, on_pass)
    distance = runner.distance("the converted model")
    found = runner.sensitivity(wanted.sensitivity_texts)
    return Answers(
        prompts=str(prompts),
        texts=len(texts),
        left_out=left_out,
        with_response=sum(text.answered for text in texts),
        device=wanted.device,
        distance=distance,
        sensitivity=found,
        advice=runner.advice(distance, found),
    )


class _Runner:
    def __init__(self, source: Side, converted: Side, texts: Sequence[Text], on_pass: OnPass) -> None:
        self._source, self._converted, self._texts, self._on_pass = source, converted, texts, on_pass
        self._batches = make_batches(texts)

    def distance(self, what: str, mix: Mix = frozenset(), converted: Side | None = None) -> Distance:
        """Return the distance of one mix over all texts."""
        work = Pass(self._source, converted or self._converted, self._batches, [mix])
        return run_pass(work, lambda done, total: self._on_pass(what, done, total))[0].distance()

    def sensitivity(self, count: int) -> Sensitivity | None:
        if count == 0:
            return None
        chosen = sample(self._texts, count)
        mixes = part_mixes(self._converted)
        work = Pass(self._source, self._converted, make_batches(chosen), [frozenset(), *mixes])
        tallies = run_pass(work, lambda done, total: self._on_pass("layers left out", done, total))
        return sensitivity(len(chosen), mixes, tallies)

    def advice(self, distance: Distance, found: Sensitivity | None) -> tuple[Advice, ...]:
        """Return what to do, each piece of advice with what a run with it taken leaves."""
        fmt, given = self._converted.fmt, list[Advice]()
        if distance.kl_mean <= advice.CLOSE_KL:
            return (advice.serve(distance),)
        if found is not None:
            mix = advice.outstanding(found)
            left = self.distance("the layers of the advice left out", mix).kl_mean if mix else None
            given.append(advice.exclude(mix, distance, left))
        if isinstance(fmt, Int4Group) and self._source.fmt.kind == "bf16":
            given += [self._regrouped(fmt, size, distance) for size in (64, 32) if size < fmt.group_size]
        return (*given, *advice.without_training(fmt, distance, given))

    def _regrouped(self, fmt: Int4Group, size: int, distance: Distance) -> Advice:
        smaller = fmt.model_copy(update={"group_size": size})
        side = Side(self._source.folder, self._source.device, requantised=(self._converted, smaller))
        return advice.group(size, distance, self.distance(f"INT4 in groups of {size}", converted=side).kl_mean)
