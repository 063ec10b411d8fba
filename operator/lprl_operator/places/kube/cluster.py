"""The Cluster Protocol on a Kubernetes API server.

Watches fill `kube.cache`; `observe` answers from it. `live_read` reads the job, its RayClusters, all their pods and the progress
ConfigMap from the API server. Jobs (inspect, convert, finalise) come from the cache also then: their creation is create-once, their
deletion guarded by uid and resource version, a finished Job of ours stays finished, and `verify` finds one that is gone without a word.
"""

import logging
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from lprl_api import names
from lprl_operator.decide.actions import Action, AddOwner, Apply, Create, Delete, DeleteOwned, Event, HandOver, RemoveOwner, Wish, ref_of
from lprl_operator.decide.observed import Key, ObjectRef, Observed, Refusal
from lprl_operator.kube import paths
from lprl_operator.kube.api import APPLY, JSON_PATCH, STRATEGIC, ApiError, KubeApi, Unavailable, is_permanent
from lprl_operator.places import handover
from lprl_operator.places.cluster import Conflict
from lprl_operator.places.kube import owners, reduce
from lprl_operator.places.kube.cache import Cache
from lprl_operator.places.kube.eventlog import EventLog
from lprl_operator.places.kube.guarded import guarded
from lprl_operator.places.kube.joins import Joins
from lprl_operator.places.kube.podless import PodlessJobs
from lprl_operator.places.kube.queues import Queues
from lprl_operator.places.kube.reader import Reader
from lprl_operator.places.kube.refusals import Refusals
from lprl_operator.places.kube.settling import Settling
from lprl_operator.places.kube.shelf import Name
from lprl_operator.places.kube.verify import Verified

log = logging.getLogger(__name__)
CACHED = frozenset({"Job", "RayCluster", "ConfigMap", names.KIND})
MADE_S = 900.0
"""So long an object we created counts as there; after that creating it again asks the API server."""


class KubeCluster:
    """Thread-safe as long as one thread at a time handles one job (the work queue sees to that)."""

    def __init__(self, api: KubeApi, cache: Cache, event_log: EventLog) -> None:
        self._api, self._cache, self._events = api, cache, event_log
        self._reader, self._joins = Reader(api, cache), Joins(self._patch_owners)
        self._podless, self.queues, self._verified = PodlessJobs(api, cache), Queues(api, cache), Verified(api, cache)
        self._refusals = Refusals()
        self._made: dict[Key, dict[ObjectRef, tuple[str, float]]] = {}
        """Controller and time of what this process created."""
        self._settling = Settling()
        self._lock = threading.Lock()

    def observe(self, key: Key) -> Observed:
        """Return what the caches know."""
        return self._complete(key, self._cache.observed(key, self._cache.uid(key), self._api.clock.now()))

    def live_read(self, key: Key) -> tuple[Mapping[str, Any] | None, Observed]:
        """Read the job and everything of its attempts from the API server."""
        uid = self._cache.uid(key)
        document = self._reader.job(key)
        if document is None:
            self.forget(key, uid)
            return None, Observed()
        self._reader.children(key, document, self._api.clock.now())
        return document, self.observe(key)

    def refresh(self, key: Key, now: datetime) -> None:
        """List what is not watched (worker pods, nodes, refusals) when it matters and was not read lately."""
        self._verified.look(key, now)
        self._podless.look(key, now)
        self.queues.look(key, now)
        self._reader.pools.look(key, now)
        if self._reader.is_due(key, now):
            document = self._cache.document(key)
            if document is not None:
                self._reader.children(key, document, now)

    def forget(self, key: Key, uid: str = "") -> None:
        """Drop what is known of a job that is gone; `uid`: and that no watch told of."""
        self._cache.forget(key, uid)
        self._reader.forget(key)
        self._verified.forget(key)
        self._refusals.forget(key)
        with self._lock:
            self._made.pop(key, None)

    def publish(self, key: Key, status: Mapping[str, Any], resource_version: str | None, events: Sequence[Event]) -> None:
        """Replace the status subresource, then post the events."""
        ref = ObjectRef(names.API_VERSION, names.KIND, key.namespace, key.name)
        meta = {"name": key.name, "namespace": key.namespace} | ({} if resource_version is None else {"resourceVersion": resource_version})
        body = {"apiVersion": names.API_VERSION, "kind": names.KIND, "metadata": meta, "status": dict(status)}
        written = guarded(lambda: self._api.put(f"{paths.item(ref)}/status", body), ref)
        self._cache.put(names.KIND, written)
        fields = {"namespace": key.namespace, "job": key.name, "attempt": status.get("attempt", 0), "phase": status.get("phase")}
        for event in events:
            log.log(logging.WARNING if event.type == "Warning" else logging.INFO, event.message, extra={**fields, "reason": event.reason})
        self._events.send(written, events)

    def apply(self, actions: Sequence[Action]) -> None:
        """Execute actions in order."""
        for action in actions:
            if isinstance(action, Create):
                if not self._create(action.document):
                    return
            elif isinstance(action, Apply):
                self._apply(action.document)
            elif isinstance(action, Delete):
                self._delete(action)
            elif isinstance(action, DeleteOwned):
                self._delete_owned(action)
            elif isinstance(action, HandOver):
                self._hand_over(action)
            elif isinstance(action, AddOwner):
                self._add_owner(action)
            else:
                self._remove_owner(action)

    def _complete(self, key: Key, seen: Observed) -> Observed:
        return self._reader.completed(key, seen, self._refusals.of(key, self._api.clock.now()))

    def _create(self, document: Mapping[str, Any]) -> bool:
        """Create once; False when it was refused, which `observe` tells from then on."""
        ref = ref_of(document)
        if self._was_made(ref, document):
            return True
        self._settling.wait(ref)
        path = paths.collection(ref.api_version, ref.kind, ref.namespace)
        try:
            made = self._api.post(path, document, fieldManager=names.FIELD_MANAGER)
        except Unavailable:
            raise
        except ApiError as error:
            if error.status == 409 and error.reason == "AlreadyExists":
                return self._exists(document, ref)
            if error.status == 404 and error.reason == "NotFound" and "namespaces" not in error.message:
                self._reader.kind_is_missing(ref.kind)
            return self._refuse(document, ref, error.message, is_permanent(error))
        self._accept(document, ref, made)
        _log_done("created", ref, owners.owning_jobs(document))
        return True

    def _exists(self, document: Mapping[str, Any], ref: ObjectRef) -> bool:
        """An object of that name is there: ours from before, or a leftover that garbage collection is about to take."""
        try:
            found = self._api.get(paths.item(ref))
        except Unavailable:
            raise
        except ApiError as error:
            return self._refuse(document, ref, error.message, permanent=False)
        ours, theirs = owners.controller_uid(document), owners.controller_uid(found)
        if ours and theirs != ours:
            holder = f"uid {theirs}" if theirs else "nobody"
            return self._refuse(document, ref, f"{ref} exists already, controlled by {holder}", permanent=False)
        if "deletionTimestamp" in reduce.meta(found):
            return self._refuse(document, ref, f"{ref} of before is being deleted", permanent=False)
        self._accept(document, ref, found)
        return True

    def _accept(self, document: Mapping[str, Any], ref: ObjectRef, found: Mapping[str, Any]) -> None:
        self._refusals.accepted(owners.owning_jobs(document), ref)
        for key in owners.owning_jobs(document):
            with self._lock:
                self._made.setdefault(key, {})[ref] = (owners.controller_uid(document), time.monotonic())
        self._remember(ref, found)

    def _was_made(self, ref: ObjectRef, document: Mapping[str, Any]) -> bool:
        """Whether this process made an object a short while ago that no watch tells of."""
        controller = owners.controller_uid(document)
        if ref.kind in ("RayCluster", "Job") or not controller:
            return False
        if reduce.label(document, names.LABEL_ROLE) == "progress" and self._cache.progress_uid(Name(ref.namespace, ref.name)) is None:
            return False  # a watch tells of these: somebody deleted it
        with self._lock:
            found = [self._made.get(key, {}).get(ref) for key in owners.owning_jobs(document)]
        return any(f is not None and f[0] == controller and time.monotonic() - f[1] < MADE_S for f in found)

    def _refuse(self, document: Mapping[str, Any], ref: ObjectRef, message: str, permanent: bool) -> bool:
        self._refusals.add(owners.owning_jobs(document), Refusal(ref, message, permanent), self._api.clock.now())
        return False

    def _remember(self, ref: ObjectRef, found: Mapping[str, Any]) -> None:
        """Take a written object over at once: the watch tells it later, and until then we would write it again."""
        if ref.kind in CACHED and (ref.kind != "ConfigMap" or reduce.label(found, names.LABEL_ROLE) == "progress"):
            self._cache.put(ref.kind, found)

    def _apply(self, document: Mapping[str, Any]) -> None:
        ref = ref_of(document)
        uid = self._cache.progress_uid(Name(ref.namespace, ref.name))
        if uid is None:
            return  # a server-side apply would create it
        body = {**document, "metadata": {**document["metadata"], "uid": uid}}
        try:
            found = self._api.patch(paths.item(ref), body, APPLY, fieldManager=names.FIELD_MANAGER, force="true")
        except ApiError as error:
            if isinstance(error, Unavailable) or error.status not in (404, 409):
                raise
            return  # the object we meant is gone: the next look tells what came instead
        self._remember(ref, found)

    def _delete_owned(self, action: DeleteOwned) -> None:
        """Read what bears the name now, and delete that very object if its controller is the one given."""
        try:
            found = self._api.get(paths.item(action.ref))
        except Unavailable:
            raise
        except ApiError as error:
            if error.status != 404:
                raise
            self._forget_made(action.ref)
            return
        if owners.controller_uid(found) != action.owner_uid:
            log.info("left alone: not ours", extra={"kind": action.ref.kind, "object": action.ref.name, "namespace": action.ref.namespace})
        elif "deletionTimestamp" not in reduce.meta(found):
            self._delete(Delete(action.ref, str(reduce.meta(found).get("uid"))))

    def _forget_made(self, ref: ObjectRef) -> None:
        self._refusals.deleted(ref)
        with self._lock:
            for made in self._made.values():
                made.pop(ref, None)

    def _delete(self, action: Delete) -> None:
        self._forget_made(action.ref)
        self._settling.deleted(action.ref)
        wanted = {"uid": action.uid, "resourceVersion": action.resource_version}
        options: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        options["preconditions"] = {k: v for k, v in wanted.items() if v is not None}
        try:
            found = self._api.delete(paths.item(action.ref), options)
        except Unavailable:
            raise
        except ApiError as error:
            if error.status == 404:
                self._cache_forget(action)
                return
            if error.status == 409:
                self._verified.doubt(action.ref, action.uid, action.resource_version)
                raise Conflict(f"{action.ref}: {error.message}") from error
            raise
        log.info("deleted %s", action.ref, extra={"kind": action.ref.kind, "object": action.ref.name})
        if found.get("kind") == action.ref.kind:  # it stays for a while (finalizers, grace); else it is gone
            self._remember(action.ref, found)
        else:
            self._cache_forget(action)

    def _cache_forget(self, action: Delete) -> None:
        if action.ref.kind in CACHED:
            gone: dict[str, Any] = {"namespace": action.ref.namespace, "name": action.ref.name, "uid": action.uid}
            self._cache.remove(action.ref.kind, {"metadata": gone})

    def _hand_over(self, action: HandOver) -> None:
        whose, ref = handover.whose(action), action.ref
        try:
            found = guarded(lambda: self._api.patch(paths.item(ref), handover.patch(action), JSON_PATCH), ref)
        except Conflict:
            self._verified.doubt(ref, action.uid, action.resource_version if isinstance(action, Wish) else None)
            raise
        except ApiError as error:  # a missing right, or a policy: told, and tried again; a place in a queue is only a wish
            if isinstance(action, Wish) and not isinstance(error, Unavailable):
                return log.info("%s: %s", action, error.message)
            if not isinstance(error, Unavailable):
                self._refuse(whose, ref, error.message, permanent=False)
            raise
        self._accept(whose, ref, found)
        log.info("%s", action, extra={"kind": ref.kind, "object": ref.name})

    def _add_owner(self, action: AddOwner) -> None:
        known = self._cache.owned_uid("Job", Name(action.ref.namespace, action.ref.name)) if action.ref.kind == "Job" else None
        if known is not None and known[0] == action.uid and action.owner["uid"] in known[1]:
            return
        self._joins.add(action)

    def _patch_owners(self, ref: ObjectRef, uid: str, owners: Sequence[Mapping[str, Any]]) -> None:
        self._patch_job(ref, {"uid": uid, "ownerReferences": [dict(o) for o in owners]})

    def _remove_owner(self, action: RemoveOwner) -> None:
        meta = {
            "uid": action.uid,
            "resourceVersion": action.resource_version,
            "ownerReferences": [{"$patch": "delete", "uid": action.owner_uid}],
        }
        self._patch_job(action.ref, meta)

    def _patch_job(self, ref: ObjectRef, meta: Mapping[str, Any]) -> None:
        """Change whose a Job is; one that is not there as it was seen is looked for, as nothing else may ever tell of it."""
        try:
            found = guarded(lambda: self._api.patch(paths.item(ref), {"metadata": meta}, STRATEGIC), ref)
        except Conflict:
            self._verified.doubt(ref, meta["uid"], meta.get("resourceVersion"))
            raise
        self._remember(ref, found)


def _log_done(verb: str, ref: ObjectRef, keys: Iterable[Key]) -> None:
    for key in keys:
        log.info("%s %s", verb, ref, extra={"namespace": key.namespace, "job": key.name, "kind": ref.kind, "object": ref.name})
