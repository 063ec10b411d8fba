"""Validating admission: the same rules the operator applies later, told when `kubectl apply` can still show them.

Refused is what could never run. What this version's images cannot run, and what is written and does nothing, is a warning that
kubectl shows. A change that leaves the spec alone always passes, so that labels, status and finalizers of a job made under older
rules can still be edited, and so does everything about a job that is being deleted.
"""

from collections.abc import Mapping
from typing import Any

from lprl_api.derived import effects
from lprl_api.errors import UserError
from lprl_api.field_error import InvalidJob
from lprl_api.rules.advice import advise
from lprl_api.rules.check import check
from lprl_api.rules.parse import parse_job
from lprl_api.rules.queueing import check_queueing
from lprl_api.spec.job import LowPrecisionRLJobSpec
from lprl_operator.decide.intake import changed_after_start, status_of
from lprl_operator.plan.plan import make_plan

Document = Mapping[str, Any]
MAX_MESSAGE = 8 * 1024
MAX_WARNING = 256
"""Of one warning, as Kubernetes advises; all of them fit its 4 KiB."""


def review(request: Document) -> dict[str, Any]:
    """PURE: AdmissionReview request (`request` field) -> its response."""
    response: dict[str, Any] = {"uid": str(request.get("uid", "")), "allowed": True}
    if not _is_judged(request):
        return response
    try:
        return {**response, **_warnings(request)}
    except UserError as error:
        problem = error
    message = f"{problem.message}; {problem.remedy}" if problem.remedy else problem.message  # as status.project says it later
    status = {"code": 422, "reason": "Invalid", "message": message[:MAX_MESSAGE]}
    return {**response, "allowed": False, "status": status}


def _is_judged(request: Document) -> bool:
    job, before = request.get("object") or {}, request.get("oldObject") or {}
    if request.get("operation") not in ("CREATE", "UPDATE") or request.get("subResource"):
        return False
    return not (job.get("metadata") or {}).get("deletionTimestamp") and not (before and before.get("spec") == job.get("spec"))


def _warnings(request: Document) -> dict[str, Any]:
    """Judge a job; return the warnings as the API server takes them, or raise UserError."""
    job, before = request.get("object") or {}, request.get("oldObject") or {}
    parsed = parse_job(job)
    spec = parsed.spec
    if before and (fields := _refused(before, spec)):
        raise changed_after_start(fields)
    errors = [*check(spec), *check_queueing(parsed)]
    if errors:
        raise InvalidJob(errors)
    inspection = status_of(before).inspection if before else None
    if inspection is not None or spec.model.shape is not None:
        make_plan(spec, inspection=inspection)
    told = advise(spec, inspection.shape if inspection is not None else None)
    return {"warnings": [str(warning)[:MAX_WARNING] for warning in told]} if told else {}


def _refused(before: Document, spec: LowPrecisionRLJobSpec) -> tuple[str, ...]:
    """Fields of a job that has started that may not change; what it was before need not be legal by today's rules."""
    status = status_of(before)
    if status.start_time is None:
        return ()
    try:
        return effects.refused(parse_job(before).spec, spec, status.training_start_time is not None)
    except UserError:
        return ()
