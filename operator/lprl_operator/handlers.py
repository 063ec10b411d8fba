"""kopf: watches only. Event handlers keep no state on objects: no finalizers, no annotations, no indices, no timers.

(kopf's indices grow quadratically and dead-lock with a worker limit; both were measured. See docs/log.md.)
"""

from typing import Any

import kopf

from lprl_api import names
from lprl_operator.settings import OperatorSettings
from lprl_operator.stateless import NothingCompared, NothingInProgress

OURS = f"{names.LABEL_MANAGED_BY}={names.MANAGED_BY}"
POD_ROLES = f"{OURS},{names.LABEL_ROLE} in (head,inspect,convert,finalise)"
"""Worker pods are not watched: RayCluster status counts them."""
PROGRESS = f"{OURS},{names.LABEL_ROLE}=progress"
FOREVER = (1, 1, 2, 3, 5, 8, *([15] * 10_000))
"""Seconds between tries of a list or watch request: an API server that is away for hours is normal life."""


def configured(settings: OperatorSettings) -> kopf.OperatorSettings:
    """Return what the watches are restricted to, and how they survive an API server that is away."""
    kopf_settings = kopf.OperatorSettings()
    watching, networking = kopf_settings.watching, kopf_settings.networking
    watching.label_selectors["batch", "v1", "jobs"] = OURS
    watching.label_selectors["ray.io", "v1", "rayclusters"] = OURS
    watching.label_selectors["", "v1", "pods"] = POD_ROLES
    watching.label_selectors["", "v1", "configmaps"] = PROGRESS
    # Both are needed: without them a half-closed connection is never noticed.
    watching.server_timeout, watching.client_timeout = 300, 330
    watching.connect_timeout = 10
    watching.chunk_size = 500
    networking.request_timeout = settings.request_timeout_seconds
    networking.error_backoffs = FOREVER
    kopf_settings.persistence.diffbase_storage = NothingCompared()
    kopf_settings.persistence.progress_storage = NothingInProgress()
    kopf_settings.posting.enabled = False
    kopf_settings.peering.standalone = True
    kopf_settings.scanning.disabled = True  # see kinds.py
    return kopf_settings


@kopf.on.event(names.GROUP, names.VERSION, names.PLURAL)
async def on_job(memo: Any, event: Any, **_: Any) -> None:
    """A LowPrecisionRLJob was listed, changed or deleted."""
    _saw(memo, names.KIND, event)


@kopf.on.event("batch", "v1", "jobs")
async def on_batch_job(memo: Any, event: Any, **_: Any) -> None:
    """An inspect, convert or finalise Job."""
    _saw(memo, "Job", event)


@kopf.on.event("ray.io", "v1", "rayclusters")
async def on_raycluster(memo: Any, event: Any, **_: Any) -> None:
    """A RayCluster of an attempt."""
    _saw(memo, "RayCluster", event)


@kopf.on.event("", "v1", "pods")
async def on_pod(memo: Any, event: Any, **_: Any) -> None:
    """A head pod, or a pod of one of our Jobs."""
    _saw(memo, "Pod", event)


@kopf.on.event("", "v1", "configmaps")
async def on_progress(memo: Any, event: Any, **_: Any) -> None:
    """A progress ConfigMap."""
    _saw(memo, "ConfigMap", event)


@kopf.on.probe(id="jobs")
async def jobs(memo: Any, **_: Any) -> int:
    """Number of jobs known."""
    return int(memo.runtime.jobs())


@kopf.on.probe(id="leading")
async def leading(memo: Any, **_: Any) -> bool:
    """Whether this replica acts."""
    return bool(memo.runtime.is_leading())


def _saw(memo: Any, kind: str, event: Any) -> None:
    memo.runtime.saw(kind, event["type"], event["object"])
