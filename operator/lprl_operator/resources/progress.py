"""The ConfigMap through which driver and operator of one attempt talk: each writes one key."""

from typing import Any

from lprl_api import names
from lprl_api.spec.job import LowPrecisionRLJob
from lprl_api.wire.progress import Control
from lprl_operator.resources import jobs, metadata, naming


def control(job: LowPrecisionRLJob, suspend: bool) -> Control:
    """What the operator asks of the driver now: the fields that may change while it runs."""
    return Control(suspend=suspend, steps=job.spec.algorithm.steps, stability=job.spec.stability)


def progress_config_map(job: LowPrecisionRLJob, attempt: int, suspend: bool = False) -> dict[str, Any]:
    """The ConfigMap as it is created: control only."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata.metadata(job, naming.progress(job.metadata.name, attempt), "progress", attempt),
        "data": {names.CONTROL_KEY: control_text(control(job, suspend))},
    }


def control_patch(job: LowPrecisionRLJob, attempt: int, wanted: Control) -> dict[str, Any]:
    """The part of it that is the operator's, for a server-side apply: the driver's key is not in it."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": naming.progress(job.metadata.name, attempt), "namespace": job.metadata.namespace},
        "data": {names.CONTROL_KEY: control_text(wanted)},
    }


def control_text(wanted: Control) -> str:
    """Canonical JSON: equal wishes are equal bytes, so an unchanged one is not written again."""
    return jobs.canonical(wanted.document())
