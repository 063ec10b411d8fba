"""Leader election by a Lease, as client-go does it: clocks of different machines are never compared.

A candidate remembers when it *saw* the Lease change and counts the holder's time from there by its own monotonic clock. A leader
that could not renew for `renew_deadline_seconds` (shorter than the lease) stops before anybody else may start. The official
Python client's election was not taken: it compares the holder's wall clock with ours and cannot release the Lease at shutdown.

Two leaders at once, were it to happen, still do no harm: status is resource-version guarded and creation is create-once.
"""

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from lprl_operator.decide.observed import ObjectRef
from lprl_operator.kube import paths
from lprl_operator.kube.api import ApiError, KubeApi
from lprl_operator.settings import Identity, LeaderElection

log = logging.getLogger(__name__)


class Elector:
    """Takes and renews the Lease from a thread of its own."""

    def __init__(
        self,
        api: KubeApi,
        settings: LeaderElection,
        who: Identity,
        on_change: Callable[[bool], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api, self._settings, self._who, self._on_change, self._clock = api, settings, who, on_change, clock
        self._ref = ObjectRef("coordination.k8s.io/v1", "Lease", who.namespace, settings.lease_name)
        self._seen: tuple[str, float] = ("", 0.0)
        """Resource version of the Lease as last seen, and when by our clock it became that."""
        self._renewed = 0.0
        self._leading = not settings.enabled
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="leader", daemon=True)

    def start(self) -> None:
        """Begin to stand for election; without election, lead at once."""
        if self._settings.enabled:
            self._thread.start()
        else:
            self._on_change(True)

    def is_leading(self) -> bool:
        """Whether this process may act now."""
        if not self._settings.enabled:
            return True
        return self._leading and self._clock() - self._renewed < self._settings.renew_deadline_seconds

    def stop(self) -> None:
        """Stop leading and give the Lease back, so that a follower need not wait for its end."""
        self._stop.set()
        if self._settings.enabled and self._thread.is_alive():
            self._thread.join(self._settings.renew_deadline_seconds)
            self._release()

    def step(self) -> None:
        """Try once to take or renew the Lease."""
        try:
            won = self._try()
        except ApiError as error:
            log.warning("lease not reachable", extra={"error": str(error)[:300]})
            won = self.is_leading()  # until the renew deadline
        if won != self._leading:
            self._leading = won
            log.info("leading" if won else "following", extra={"lease": self._ref.name, "identity": self._who.name})
            self._on_change(won)

    def _run(self) -> None:
        while not self._stop.is_set():
            self.step()
            self._stop.wait(self._settings.retry_period_seconds * (0.9 + 0.2 * random.random()))

    def _try(self) -> bool:
        before = self._clock()  # a renewal counts from when it was sent
        lease = self._read()
        if lease is None:
            self._api.post(paths.collection(self._ref.api_version, self._ref.kind, self._ref.namespace), self._document(None))
            self._renewed = before
            return True
        version, spec = str(lease["metadata"]["resourceVersion"]), lease.get("spec") or {}
        if version != self._seen[0]:
            self._seen = (version, before)
        holder = spec.get("holderIdentity") or ""
        lasts = float(spec.get("leaseDurationSeconds") or self._settings.lease_duration_seconds)
        if holder not in ("", self._who.name) and before < self._seen[1] + lasts:
            return False
        try:
            written = self._api.put(paths.item(self._ref), self._document(lease))
        except ApiError as error:
            if error.status == 409:
                return False  # somebody was faster
            raise
        self._seen, self._renewed = (str(written["metadata"]["resourceVersion"]), before), before
        return True

    def _read(self) -> Mapping[str, Any] | None:
        try:
            return self._api.get(paths.item(self._ref))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def _document(self, lease: Mapping[str, Any] | None) -> dict[str, Any]:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = dict((lease or {}).get("spec") or {})
        if spec.get("holderIdentity") != self._who.name:
            spec |= {"acquireTime": now, "leaseTransitions": int(spec.get("leaseTransitions") or 0) + (lease is not None)}
        spec |= {"holderIdentity": self._who.name, "renewTime": now, "leaseDurationSeconds": self._settings.lease_duration_seconds}
        meta: dict[str, Any] = {"name": self._ref.name, "namespace": self._ref.namespace}
        if lease is not None:
            meta["resourceVersion"] = lease["metadata"]["resourceVersion"]
        return {"apiVersion": self._ref.api_version, "kind": self._ref.kind, "metadata": meta, "spec": spec}

    def _release(self) -> None:
        if not self._leading:
            return
        self._leading = False
        try:
            lease = self._read()
            if lease is not None and lease["spec"].get("holderIdentity") == self._who.name:
                spec = {**lease["spec"], "holderIdentity": "", "leaseDurationSeconds": 1}
                self._api.put(paths.item(self._ref), {**lease, "spec": spec})
        except ApiError as error:
            log.warning("lease not released", extra={"error": str(error)[:300]})
