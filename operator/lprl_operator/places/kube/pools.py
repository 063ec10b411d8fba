"""Whether the warm pools that a job's tools name can give a sandbox: read while the job takes no GPU yet, now and then."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from lprl_api import names
from lprl_operator.decide.observed import Key, ObjectRef
from lprl_operator.kube import paths
from lprl_operator.kube.api import ApiError, KubeApi, Unavailable
from lprl_operator.places.kube import reduce
from lprl_operator.places.kube.cache import Cache

PERIOD_S = 15.0
"""Between two looks at a job's pools."""
GROUP = f"/apis/{names.SANDBOX_GROUP}"
KIND = "SandboxWarmPool"


@dataclass(frozen=True, slots=True)
class _Looked:
    at: datetime
    found: Mapping[str, str]


class Pools:
    """Thread-safe."""

    def __init__(self, api: KubeApi, cache: Cache) -> None:
        self._api, self._cache = api, cache
        self._lock = threading.Lock()
        self._looked: dict[Key, _Looked] = {}

    def look(self, key: Key, now: datetime) -> None:
        """Read the pools of a job that names some, unless it runs."""
        document = self._cache.document(key, b'"warmPool"')
        if document is None or any(not c.suspended for c in self._cache.clusters(key)):
            return
        with self._lock:
            before = self._looked.get(key)
        wanted = pools_of(document)
        if before is not None and (now - before.at).total_seconds() < PERIOD_S and wanted <= before.found.keys():
            return
        found = {pool: self._trouble(key.namespace, pool) for pool in sorted(wanted)}
        with self._lock:
            self._looked[key] = _Looked(now, found)

    def of(self, key: Key) -> Mapping[str, str]:
        """Return what keeps pools from giving a sandbox, by name; empty text for one that can. Those not read yet are missing."""
        with self._lock:
            looked = self._looked.get(key)
        return looked.found if looked is not None else {}

    def forget(self, key: Key) -> None:
        """Drop what is known of a job that is gone."""
        with self._lock:
            self._looked.pop(key, None)

    def _trouble(self, namespace: str, pool: str) -> str:
        try:
            found = self._api.get(paths.item(ObjectRef(names.SANDBOX_API_VERSION, KIND, namespace, pool)))
        except ApiError as error:
            if error.status in (403, 404):
                return self._missing(namespace, pool, error)
            # Not raised: a webhook of agent-sandbox that is down must not keep the job from being suspended or ended.
            return f"it cannot be read: {error.message[: reduce.MAX_TEXT]}"
        return trouble(found)

    def _missing(self, namespace: str, pool: str, error: ApiError) -> str:
        """Say why a pool cannot be read: who may not is refused either way, but which kinds there are is told to everybody."""
        try:
            self._api.get(GROUP)
        except Unavailable as error_of_group:
            return f"it cannot be read: {error_of_group.message[: reduce.MAX_TEXT]}"
        except ApiError:
            return "the API server knows no such kind: install agent-sandbox, then upgrade the operator's release for the rights"
        if error.status == 403:
            return "the operator may not read it: upgrade its release, which gives the rights where there is agent-sandbox"
        return f"there is none of that name in namespace {namespace}: make it, or name another one"


def pools_of(document: Mapping[str, Any]) -> frozenset[str]:
    """Return the pools that a job's document names."""
    tools = ((document.get("spec") or {}).get("episode") or {}).get("tools") or ()
    found = ((tool.get("sandbox") or {}).get("warmPool") for tool in tools if isinstance(tool, Mapping))
    return frozenset(str(pool) for pool in found if pool)


def trouble(pool: Mapping[str, Any]) -> str:
    """Return what keeps a pool from giving a sandbox at once; empty when one is ready."""
    wanted, status = (pool.get("spec") or {}).get("replicas", 1), pool.get("status") or {}
    if status.get("readyReplicas"):
        return ""
    template = ((pool.get("spec") or {}).get("sandboxTemplateRef") or {}).get("name")
    if not wanted:
        return "its replicas are 0: scale it up"
    return f"0 of {wanted} sandboxes are ready (template {template}): `kubectl get sandboxes` and their pods say why, or wait"
