"""Cross-field rules of a spec: all at once, pure, never raising. The webhook, `lprl validate` and the operator run the same ones."""

from collections.abc import Iterator

from lprl_api.field_error import FieldError
from lprl_api.model.model_shape import Inspection, ModelShape
from lprl_api.rules import (
    algorithm,
    episode,
    hardware,
    layout,
    megatron,
    pods,
    precision,
    queueing,
    references,
    sampling,
    servable,
    trained,
)
from lprl_api.rules import shape as shapes
from lprl_api.rules.case import Case, Rule
from lprl_api.spec.job import LowPrecisionRLJobSpec

__all__ = ["RULES", "FieldError", "check", "check_partial", "untrained"]

RULES: tuple[Rule, ...] = (
    *references.RULES,
    *pods.RULES,
    *queueing.RULES,
    *algorithm.RULES,
    *sampling.RULES,
    *episode.RULES,
    *precision.RULES,
    *hardware.RULES,
    *layout.RULES,
    *shapes.RULES,
    *megatron.RULES,
    *servable.RULES,
)


def check(
    spec: LowPrecisionRLJobSpec, shape: ModelShape | None = None, inspection: Inspection | None = None, *, planned: bool = False
) -> list[FieldError]:
    """Return every rule the spec breaks, in field order of discovery, no duplicates.

    `shape` is the inspected model's; without it the known shape the spec names is used, and without either the rules that
    need a shape wait for the inspection. `inspection` adds what only the source tells (its quantisation). `planned`: the job is only
    planned, and may be of a model that nothing trains yet (`untrained` says so).
    """
    case = Case.of(spec, shape, inspection)
    rules = RULES if planned else (*RULES, *trained.RULES)
    return list(dict.fromkeys(error for rule in rules for error in rule(case)))


def untrained(spec: LowPrecisionRLJobSpec, shape: ModelShape | None = None, inspection: Inspection | None = None) -> list[FieldError]:
    """Return why nothing can train the model of a job that is only planned; empty where something can."""
    case = Case.of(spec, shape, inspection)
    return [error for rule in trained.RULES for error in rule(case)]


def check_partial(spec: LowPrecisionRLJobSpec) -> list[FieldError]:
    """Return every rule that a spec with gaps (partial.py) breaks whatever stood there: a rule that looks at a gap ends."""
    case = Case.of(spec, None, None)
    return list(dict.fromkeys(error for rule in (*RULES, *trained.RULES) for error in _until_gap(rule, case)))


def _until_gap(rule: Rule, case: Case) -> Iterator[FieldError]:
    try:
        yield from rule(case)
    except AttributeError:  # what pydantic raises for a field that is not there
        return
