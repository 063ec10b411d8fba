"""The one-pod Job that verifies a finished conversion and publishes it: index, config.json and, last, manifest.json."""

from typing import Any

from lprl_api.runconfig import ConvertConfig
from lprl_api.spec import LowPrecisionRLJob
from lprl_operator.resources import convert_job, jobs, metadata, naming
from lprl_operator.resources.settings import RenderSettings

ROLE = "finalise"


def finalise_documents(job: LowPrecisionRLJob, name: str, config: ConvertConfig, settings: RenderSettings) -> tuple[dict[str, Any], ...]:
    """ConfigMap (the conversion's own) and Job; created when the Indexed Job `name` is complete."""
    config_map = convert_job.config_name(name, config)
    labels = metadata.shared_labels(config.content_key, ROLE)
    container = jobs.container(job, ROLE, jobs.workload("finalise", jobs.CONVERT_KEY), config.source, settings)
    meta = metadata.shared_metadata(job, naming.finalise_job(name), config.content_key, ROLE)
    meta["labels"] |= metadata.queue_labels(job)
    document = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": meta,
        "spec": {
            "backoffLimit": jobs.RETRIES,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": jobs.failure_policy(),
            "template": jobs.template(job, labels, config_map, (container,), settings),
        },
    }
    shared = metadata.shared_metadata(job, config_map, config.content_key, convert_job.ROLE)
    return jobs.config_map(shared, {jobs.CONVERT_KEY: config.document()}), document
