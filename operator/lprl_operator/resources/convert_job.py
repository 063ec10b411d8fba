"""The Indexed Job that makes one low-precision checkpoint, shared by every job that wants it."""

from typing import Any

from lprl_api.spec.job import LowPrecisionRLJob
from lprl_api.wire.runconfig import ConvertConfig
from lprl_operator.resources import jobs, metadata
from lprl_operator.resources.settings import RenderSettings

ROLE = "convert"


def convert_document(job: LowPrecisionRLJob, name: str, config: ConvertConfig, settings: RenderSettings) -> dict[str, Any]:
    """The Indexed Job. Index i converts shards i, i + workers, ...; finished shards are skipped after a restart."""
    labels = metadata.shared_labels(config.content_key, ROLE)
    container = jobs.container(job, ROLE, jobs.workload("convert", jobs.CONVERT_KEY), config.source, settings)
    meta = metadata.shared_metadata(job, name, config.content_key, ROLE)
    meta["labels"] |= metadata.preparing_queue_labels(job)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": meta,
        "spec": {
            "completionMode": "Indexed",
            "completions": config.workers,
            "parallelism": min(job.spec.conversion.parallelism, config.workers),
            "backoffLimitPerIndex": jobs.RETRIES,
            "maxFailedIndexes": 0,
            # A writer must be gone before its replacement starts.
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": jobs.failure_policy(),
            "template": jobs.template(job, labels, {jobs.CONVERT_KEY: config.document()}, (container,), settings),
        },
    }
