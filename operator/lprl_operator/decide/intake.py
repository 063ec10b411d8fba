"""Document and snapshot -> Case: parse, take the inspection, plan, render."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any

from lprl_api.catalog.images import missing_backends
from lprl_api.derived import effects
from lprl_api.errors import UserError
from lprl_api.field_error import FieldError, InvalidJob
from lprl_api.model.model_shape import Inspection
from lprl_api.names import Reason
from lprl_api.rules.check import check
from lprl_api.rules.parse import parse_job
from lprl_api.rules.queueing import check_queueing
from lprl_api.spec.job import LowPrecisionRLJob, LowPrecisionRLJobSpec
from lprl_api.wire import lenient
from lprl_api.wire.status import LowPrecisionRLJobStatus
from lprl_operator.decide.decision import Case, judged_valid
from lprl_operator.decide.inspecting import inspection_of
from lprl_operator.decide.observed import Observed
from lprl_operator.decide.recall import recalled
from lprl_operator.plan.plan import make_plan
from lprl_operator.plan.types import JobPlan
from lprl_operator.resources.render import render
from lprl_operator.resources.settings import RenderSettings


def intake(document: Mapping[str, Any], seen: Observed, now: datetime, settings: RenderSettings) -> Case:
    """Return what a decision is made from.

    Raises InvalidJob when the spec does not even parse; a spec that parses but breaks a rule or does not fit is a Case with
    a `problem`.
    """
    job = parse_job(document)
    status = recalled(status_of(document), seen, job.metadata.uid, job.metadata.creation_timestamp)
    parts = effects.digests(job.spec)
    # A newer version reads a spec that nobody edited another way.
    edited = not judged_valid(status, job.metadata.generation) and bool(status.spec_parts)
    changes = effects.changed(status.spec_parts, parts) if edited else ()
    fixed = (*(effects.FIXED if status.start_time else ()), *((effects.CLAIMS,) if status.training_start_time else ()))
    if refused := tuple(path for path in changes if path in fixed):
        return Case(job, status, seen, render(job, None, None, settings), now, changed_after_start(refused), Reason.INVALID_SPEC)
    known = None if effects.CLAIMS in changes else status.inspection  # on another claim is another source
    inspection = known or inspection_of(seen, job)
    status = status.model_copy(update={"inspection": inspection, "spec_parts": parts})
    plan, problem, reason = _plan(_question(job, status, settings.image))
    # What nobody reads harms nothing that runs already: labels can be edited at any time.
    if status.attempt == 0 and (problem is None or isinstance(problem, InvalidJob)) and (unread := check_queueing(job)):
        plan, problem, reason = None, InvalidJob([*(problem.errors if problem is not None else ()), *unread]), Reason.INVALID_SPEC
    return Case(job, status, seen, render(job, plan, inspection, settings), now, problem, reason)


def status_of(document: Mapping[str, Any]) -> LowPrecisionRLJobStatus:
    """Return the status of a document; a job that was never looked at has an empty one."""
    return lenient.read(LowPrecisionRLJobStatus, document.get("status") or {})


@dataclass(frozen=True, slots=True)
class _Question:
    """What a plan depends on, compared by its text: specs hold mappings and so have no hash of their own."""

    text: str
    image: str
    """The operator's workload image."""
    spec: LowPrecisionRLJobSpec = field(compare=False)
    inspection: Inspection | None = field(compare=False)


def _question(job: LowPrecisionRLJob, status: LowPrecisionRLJobStatus, image: str) -> _Question:
    inspection = status.inspection
    if inspection is not None and status.attempt > 0:
        # Once an attempt was made the conversions are there: free space no longer speaks against them.
        inspection = inspection.model_copy(update={"free_bytes": None})
    # Suspending and resuming a job asks no new question.
    spec = job.spec.model_copy(update={"suspend": False})
    text = spec.model_dump_json() + (inspection.model_dump_json() if inspection is not None else "")
    return _Question(text, image, spec, inspection)


@lru_cache(maxsize=4096)
def _plan(question: _Question) -> tuple[JobPlan | None, UserError | None, str]:
    """Check the rules with what is known, then plan as soon as a shape is. Remembered: jobs are looked at often."""
    spec, inspection = question.spec, question.inspection
    errors = check(spec)
    if errors:
        return None, InvalidJob(errors), Reason.INVALID_SPEC
    if inspection is not None:
        errors = check(spec, inspection.shape, inspection)
        if errors:
            return None, InvalidJob(errors), Reason.SHAPE_MISMATCH
    missing = missing_backends(spec, question.image)  # said last, as admission only warns of it, and before anything is made
    problem = InvalidJob(missing) if missing else None
    if inspection is None and spec.model.shape is None:
        return None, problem, Reason.INVALID_SPEC if missing else Reason.VALID
    try:
        plan = make_plan(spec, inspection=inspection)
    except UserError as error:
        return None, error, Reason.DOES_NOT_FIT
    return (None, problem, Reason.INVALID_SPEC) if missing else (plan, None, Reason.VALID)


def changed_after_start(fields: tuple[str, ...]) -> InvalidJob:
    """The refusal of an edit of what decides the result; `fields`: dotted, below spec."""
    need = "the values the job was started with: put them back, or make another job to run other ones"
    return InvalidJob([FieldError(", ".join(f"spec.{path}" for path in fields), "a change after the start", need)])
