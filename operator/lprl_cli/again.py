"""`lprl run` a second time: what is done with what an earlier run of this manifest, or of one before it was corrected, left."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from lprl_api.derived.run_folder import Content, Owner, check_folder, content_of
from lprl_api.derived.trained import trained_document
from lprl_api.errors import UserError
from lprl_api.field_error import InvalidJob
from lprl_api.rules.parse import parse_job
from lprl_api.spec.job import LowPrecisionRLJob
from lprl_cli.runfolder import RunFolder

KEPT = ("lock", "secrets")
"""Of a state folder, what is no earlier run's."""
WAYS = (
    "`lprl run FILE --restart` starts over and moves the checkpoints aside; under another metadata.name they stay (see checkpoint.loadFrom)"
)


@dataclass(frozen=True, slots=True)
class Way:
    """How this run begins."""

    how: Literal["new", "goes-on", "finished", "anew"]
    """Nothing is there; the life that was interrupted or suspended goes on; it is done; a new life from the checkpoint."""
    words: str = ""


def way(found: RunFolder, document: Mapping[str, Any]) -> Way:
    """Return how to begin; nothing is changed.

    Raises UserError when the manifest trains something else than the checkpoint that is there: the fields, and the two ways.
    """
    old, job, phase = found.job(), parse_job(document), found.status().get("phase")
    same = bool(old) and _wish(old) == _wish(document)
    if same and phase == "Succeeded":
        return Way("finished", f"{job.metadata.name} finished earlier; --restart starts it over")
    content = content_of(found.run)
    _check(content, old, job)
    step = f"from step {content.step}" if content.step is not None else "at step 0: no checkpoint was made"
    if not old:
        earlier = "an earlier run of this name" if content.step is not None else ""
        return Way("new", f"{job.metadata.name} goes on {step} of {earlier}" if earlier else "")
    if same and phase != "Failed":
        return Way("goes-on")
    why = "failed; it is tried again" if phase == "Failed" else "had another manifest; this one goes on"
    return Way("anew", f"the earlier run of {job.metadata.name} {why}, {step}")


def set_aside(found: RunFolder, run_too: bool) -> Path | None:
    """Rename what the state folder holds, with `run_too` the run folder as well: nothing is deleted. Returns where the state went."""
    assert found.state is not None
    stamp = time.strftime("%Y%m%d-%H%M%S")
    old = _free(found.state.with_name(f"{found.state.name}.before-{stamp}"))
    for path in sorted(found.state.iterdir()):
        if path.name not in KEPT:
            old.mkdir(exist_ok=True)
            path.replace(old / path.name)
    if run_too and found.run.exists():
        found.run.replace(_free(found.run.with_name(f"{found.run.name}.before-{stamp}")))
    return old if old.exists() else None


def _free(path: Path) -> Path:
    number, found = 1, path
    while found.exists():
        number += 1
        found = path.with_name(f"{path.name}-{number}")
    return found


def _wish(document: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a user asks for; suspending and resuming are no other wish."""
    spec = {key: value for key, value in document["spec"].items() if key != "suspend"}
    return document["metadata"]["name"], document["metadata"].get("namespace", "default"), spec


def _check(content: Content, old: Mapping[str, Any], job: LowPrecisionRLJob) -> None:
    """Refuse a manifest that trains something else; the state folder knows what a version without owner.json trained."""
    if content.owner is None and old:
        content = replace(content, owner=_owner_of(old))
    me = Owner(namespace=job.metadata.namespace, name=job.metadata.name, uid="of this run", trained=trained_document(job.spec))
    try:
        check_folder(content, me, str(content.folder))
    except UserError as error:
        raise UserError(error.message, WAYS) from None


def _owner_of(old: Mapping[str, Any]) -> Owner | None:
    try:
        job = parse_job(old)
    except InvalidJob:
        return None  # it never ran
    meta = job.metadata
    return Owner(namespace=meta.namespace, name=meta.name, uid=meta.uid, trained=trained_document(job.spec))
