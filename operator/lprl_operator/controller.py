"""The first arrow on one screen: document -> parse -> plan -> render -> observe -> decide -> project -> publish -> apply."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from lprl_api.field_error import InvalidJob
from lprl_api.wire.status import LowPrecisionRLJobStatus
from lprl_operator.decide.actions import Action, Event
from lprl_operator.decide.decide import consequential, decide, remembers
from lprl_operator.decide.intake import intake, status_of
from lprl_operator.decide.observed import Key, Observed
from lprl_operator.places.cluster import Cluster, Conflict
from lprl_operator.resources.settings import RenderSettings
from lprl_operator.status.events import events
from lprl_operator.status.project import project, refuse

CONFLICT_RETRY_S = 1.0


def reconcile(
    document: Mapping[str, Any], cluster: Cluster, now: datetime, settings: RenderSettings, crowded: bool = False
) -> float | None:
    """Bring one job one step further; return the seconds after which to look again, None when only a change matters.

    Safe to call at any time, any number of times, with a stale document: whatever does something is decided on a live
    read, and what is to be remembered is in status (resource-version guarded) before children change. In a crowd what is
    merely told is left to the next look: it then tells what came of it, too.
    """
    key = Key(document["metadata"].get("namespace", "default"), document["metadata"]["name"])
    view = consider(document, cluster.observe(key), now, settings)
    if view.needs_live_read:
        live, seen = cluster.live_read(key)
        if live is None:
            return None
        view = consider(live, seen, now, settings)
    try:
        if view.status is not None and not (crowded and view.can_tell_later):
            cluster.publish(key, view.status, view.resource_version, view.events)
        cluster.apply(view.actions)
    except Conflict:
        return CONFLICT_RETRY_S
    return view.requeue_seconds


@dataclass(frozen=True, slots=True)
class View:
    """What one look at a job concluded."""

    status: Mapping[str, Any] | None
    """The status to write, None when it would not change."""
    resource_version: str | None
    events: tuple[Event, ...] = ()
    actions: tuple[Action, ...] = ()
    requeue_seconds: float | None = None
    needs_live_read: bool = False
    can_tell_later: bool = False
    """Whether there is something to do that was not refused before, and nothing in the status that doing it depends on."""


def consider(document: Mapping[str, Any], seen: Observed, now: datetime, settings: RenderSettings) -> View:
    """PURE: the whole of a reconcile except reading and writing."""
    version = document["metadata"].get("resourceVersion")
    if document["metadata"].get("deletionTimestamp"):
        return View(None, version)  # children are owned: garbage collection does the rest
    before = status_of(document)
    try:
        case = intake(document, seen, now, settings)  # parse -> inspection -> plan -> render
    except InvalidJob as error:
        after = refuse(document, before, error, now)
        return View(_written(before, after), version, events(before, after))
    decision = decide(case)
    after = project(case, decision)
    return View(
        status=_written(before, after),
        resource_version=version,
        events=events(before, after),
        actions=decision.actions,
        requeue_seconds=decision.requeue_seconds,
        needs_live_read=consequential(before, decision),
        can_tell_later=bool(decision.actions) and not remembers(before, decision) and not seen.refusals,
    )


def _written(before: LowPrecisionRLJobStatus, after: LowPrecisionRLJobStatus) -> Mapping[str, Any] | None:
    """The document to write; None when nothing changed. Absent fields are left out: the API server drops nulls too."""
    return None if after == before else after.model_dump(mode="json", by_alias=True, exclude_none=True)
