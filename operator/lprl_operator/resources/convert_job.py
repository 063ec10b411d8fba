"""The Indexed Job that makes one low-precision checkpoint, shared by every job that wants it."""

from typing import Any

from lprl_api.runconfig import ConvertConfig
from lprl_api.spec import LowPrecisionRLJob
from lprl_operator.resources import jobs, metadata, naming
from lprl_operator.resources.settings import RenderSettings

ROLE = "convert"


def config_name(name: str, config: ConvertConfig) -> str:
    """Name of the ConfigMap of a conversion: it carries the content's hash, since owners may ask for different pod counts."""
    return naming.conversion_config(name, naming.content_hash(config.document()))


def convert_documents(job: LowPrecisionRLJob, name: str, config: ConvertConfig, settings: RenderSettings) -> tuple[dict[str, Any], ...]:
    """ConfigMap and Indexed Job. Index i converts shards i, i + workers, ...; finished shards are skipped after a restart."""
    config_map = config_name(name, config)
    labels = metadata.shared_labels(config.content_key, ROLE)
    container = jobs.container(job, ROLE, jobs.workload("convert", jobs.CONVERT_KEY), config.source, settings)
    meta = metadata.shared_metadata(job, name, config.content_key, ROLE)
    meta["labels"] |= metadata.queue_labels(job)
    document = {
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
            "template": jobs.template(job, labels, config_map, (container,), settings),
        },
    }
    shared = metadata.shared_metadata(job, config_map, config.content_key, ROLE)
    return jobs.config_map(shared, {jobs.CONVERT_KEY: config.document()}), document
