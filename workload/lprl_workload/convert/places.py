"""Where a conversion may write, asked before anything is written: never over, into or around its source."""

import os
from pathlib import Path

from lprl_api.errors import UserError
from lprl_workload.convert.cache import partial_of
from lprl_workload.convert.disk import existing_parent
from lprl_workload.process.termination import FULL_ERRNOS


def check_places(source: Path, target: Path) -> None:
    """Refuse a target that is, holds or lies in the source (symbolic links followed), is no folder, or cannot be written."""
    check_apart(source, target)
    check_apart(source, partial_of(target))
    for place in (target, partial_of(target)):
        if place.exists() and not place.is_dir():
            raise UserError(f"{place}: is there already and is no folder", "choose another target")
    folder = existing_parent(target.parent)
    if not folder.is_dir():
        raise UserError(f"{target}: {folder} is no folder", "choose another target")
    # Asked by trying: permission bits say nothing of read-only mounts, of /proc, or to root.
    probe = folder / f".{target.name}.{os.getpid()}.probe"
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        if error.errno in FULL_ERRNOS:
            raise
        what = f"{target}: {folder} cannot be written ({error.strerror})"
        raise UserError(what, "choose another target, or make that folder writable") from error


def check_apart(source: Path, target: Path) -> None:
    """Refuse a target that is, holds or lies in the source."""
    mine, other = source.resolve(), target.resolve()
    if mine == other:
        raise UserError(f"{target}: is the source itself", "choose another target: a source is never written to")
    if mine in other.parents:
        raise UserError(f"{target}: lies inside the source {source}", "choose a target outside of it: a source is never written to")
    if other in mine.parents:
        raise UserError(f"{target}: holds the source {source}", "choose a folder of its own for the target")
