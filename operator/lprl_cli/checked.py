"""A manifest to a valid job, or one error that shows all of its field errors."""

import sys

from lprl_api.errors import UserError
from lprl_api.field_error import FieldError, InvalidJob
from lprl_api.rules.check import check
from lprl_api.rules.parse import parse_job
from lprl_api.rules.queueing import check_queueing
from lprl_api.spec.job import LowPrecisionRLJob
from lprl_cli.manifest import Manifest


def checked_job(manifest: Manifest, *, planned: bool = False) -> LowPrecisionRLJob:
    """Return the job; one that is only `planned` may be of a model that nothing trains yet.

    Raises:
        UserError: every field that is wrong, one a line, with file and line.

    """
    try:
        job = parse_job(manifest.document)
    except InvalidJob as error:
        raise invalid(manifest, error.errors) from None
    errors = [*check(job.spec, planned=planned), *check_queueing(job)]
    if errors:
        raise invalid(manifest, errors)
    return job


def invalid(manifest: Manifest, errors: list[FieldError]) -> UserError:
    """Return one error that lists all field errors."""
    lines = "".join(f"\n  {manifest.where(e.path)}: {e}" for e in errors)
    return UserError(f"{manifest.file}: {len(errors)} field{'s' if len(errors) > 1 else ''} wrong{lines}", "change the fields named")


def tell(manifest: Manifest, warnings: list[FieldError]) -> None:
    """Print warnings on a job that is legal, on the error stream."""
    for warning in warnings:
        at = manifest.where(warning.path)
        print(f"warning: {at}: {warning.path}: got {warning.got}; fits {warning.need}", file=sys.stderr)
