"""Validating admission: the same rules the operator applies later, told when `kubectl apply` can still show them.

Refused is what could never run. A change that leaves the spec alone always passes, so that labels, status and finalizers of a job
made under older rules can still be edited, and so does everything about a job that is being deleted.
"""

from collections.abc import Mapping
from typing import Any

from lprl_api.errors import UserError
from lprl_api.field_error import InvalidJob
from lprl_api.parse import parse_job
from lprl_api.rules import check
from lprl_operator.plan.plan import make_plan
from lprl_operator.reconcile.intake import status_of

Document = Mapping[str, Any]
MAX_MESSAGE = 8 * 1024


def review(request: Document) -> dict[str, Any]:
    """PURE: AdmissionReview request (`request` field) -> its response."""
    response: dict[str, Any] = {"uid": str(request.get("uid", "")), "allowed": True}
    problem = _problem(request)
    if problem is None:
        return response
    message = f"{problem.message}; {problem.remedy}" if problem.remedy else problem.message  # as status.project says it later
    status = {"code": 422, "reason": "Invalid", "message": message[:MAX_MESSAGE]}
    return {**response, "allowed": False, "status": status}


def _problem(request: Document) -> UserError | None:
    job, before = request.get("object") or {}, request.get("oldObject") or {}
    if request.get("operation") not in ("CREATE", "UPDATE") or request.get("subResource"):
        return None
    if (job.get("metadata") or {}).get("deletionTimestamp") or (before and before.get("spec") == job.get("spec")):
        return None
    try:
        spec = parse_job(job).spec
        errors = check(spec)
        if errors:
            return InvalidJob(errors)
        inspection = status_of(before).inspection if before else None
        if inspection is not None or spec.model.shape is not None:
            make_plan(spec, inspection=inspection)
    except UserError as error:
        return error
    return None
