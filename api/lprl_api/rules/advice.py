"""Warnings about a legal spec: what will not run as it is, and what is written and does nothing. Told, never refused by the rules."""

from collections.abc import Iterator

from lprl_api.catalog.images import missing_backends
from lprl_api.catalog.mismatch import sequence_level, sequence_remedy
from lprl_api.catalog.servable import folder_warnings
from lprl_api.derived import effective
from lprl_api.field_error import FieldError, wrong
from lprl_api.model.formats.chosen import export_format
from lprl_api.model.model_shape import ModelShape
from lprl_api.rules.case import Case
from lprl_api.spec.job import LowPrecisionRLJobSpec
from lprl_api.spec.topology import ABSOLUTE_LIMIT


def advise(spec: LowPrecisionRLJobSpec, shape: ModelShape | None = None) -> list[FieldError]:
    """Return warnings on a spec that parses; `shape` as in rules.check."""
    case = Case.of(spec, shape, None)
    return [*missing_backends(spec), *_exports(case), *_unread(case), *_idle_guard(case), *_sequences(case), *_stale(case)]


def _exports(case: Case) -> Iterator[FieldError]:
    if case.shape is None:
        return
    for index, name in enumerate(case.spec.checkpoint.export_formats):
        told = folder_warnings(case.shape, export_format(case.spec.precision, name, case.shape.moe is not None))
        if told:
            yield wrong(f"checkpoint.exportFormats[{index}]", name, "; ".join(told))


def _unread(case: Case) -> Iterator[FieldError]:
    spec = case.spec
    if spec.model.reference is not None and not effective.reads_reference(spec.algorithm.kl):
        need = "nothing, or algorithm.kl.coefficient above 0, or algorithm.kl.measure: without them no reference is read"
        yield wrong("model.reference", "a model", need)
    if spec.optimizer.schedule == "constant" and spec.optimizer.min_learning_rate > 0:
        need = "nothing with schedule constant, which never decays; or schedule linear or cosine"
        yield wrong("optimizer.minLearningRate", spec.optimizer.min_learning_rate, need)


def _idle_guard(case: Case) -> Iterator[FieldError]:
    """A guard that measures its baseline for the whole run never acts on a drift below the absolute limit that every job has."""
    stability, steps = case.spec.stability, case.spec.algorithm.steps
    first = stability.baseline_steps + stability.patience - 1
    if stability.action != "warn" and stability.absolute_limit in (None, ABSOLUTE_LIMIT) and first > steps:
        need = f"a smaller baselineSteps or patience: stability.action {stability.action} cannot act before step {first} of {steps}"
        yield wrong("stability.baselineSteps", stability.baseline_steps, need)


def _sequences(case: Case) -> Iterator[FieldError]:
    """Ratios of whole responses with a pair whose mismatch leaves them to a few of them."""
    algorithm = case.spec.algorithm
    path, remedy = sequence_level(algorithm), sequence_remedy(case.spec.precision)
    if path is not None and remedy is not None:
        yield wrong(path, algorithm.name if path == "algorithm.name" else algorithm.correction.level, remedy)


def _stale(case: Case) -> Iterator[FieldError]:
    """Samples of older weights whose ratio to the trained ones nothing weighs."""
    algorithm = case.spec.algorithm
    if algorithm.max_staleness and algorithm.correction.type == "none":
        need = f"tis, icepop or mis: without one maxStaleness {algorithm.max_staleness} trains on samples of older weights as they are"
        yield wrong("algorithm.correction.type", "none", need)
