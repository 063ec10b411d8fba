"""Taking over a run folder: nothing is written before it is known to be this job's to go on with."""

import logging
from pathlib import Path

from lprl_api.derived.run_folder import OWNER, Content, Owner, check_folder, content_of
from lprl_api.wire.runconfig import RunConfig
from lprl_workload.checkpoint.manifest import fsync

log = logging.getLogger(__name__)


def owner_of(run: RunConfig) -> Owner:
    """Return what a job notes of itself in its run folder."""
    return Owner(namespace=run.namespace, name=run.job_name, uid=run.job_uid, trained=run.trained)


def checked_content(folder: Path, me: Owner, place: str) -> Content:
    """Return what the folder holds; raises UserError when something else was trained in it. Reads only."""
    found = content_of(folder)
    check_folder(found, me, place)
    return found


def note_owner(before: Content, me: Owner) -> None:
    """Write owner.json, durably, where it does not say so already; the folder is fenced by then."""
    if before.step is not None and before.owner is None:
        log.info("%s: checkpoints of a version that did not note whose they are; taken over as this job's", before.folder)
    if before.owner is not None and before.owner.trained is not None and me.trained is None:
        me = me.model_copy(update={"trained": before.owner.trained})  # nobody said otherwise
    if before.owner == me:
        return
    aside = before.folder / f"{OWNER}.tmp"
    aside.write_text(me.model_dump_json(by_alias=True, indent=1) + "\n")
    fsync(aside)
    aside.replace(before.folder / OWNER)
    fsync(before.folder)


def resumed_from(found: Content, me: Owner) -> str:
    """Return in words what is resumed of an earlier job of this name; empty when there is nothing, or it is this very job's."""
    if found.step is None or (found.owner is not None and found.owner.uid == me.uid):
        return ""
    uid = f"uid {found.owner.uid}" if found.owner is not None else "its version noted no uid"
    return f"resumed from step {found.step} of an earlier job of this name ({uid})"
