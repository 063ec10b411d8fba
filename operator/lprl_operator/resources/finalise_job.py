"""The one-pod Job that verifies a finished conversion and publishes it: index, config.json and, last, manifest.json."""

from typing import Any

from lprl_api.spec.job import LowPrecisionRLJob
from lprl_api.wire.runconfig import ConvertConfig
from lprl_operator.resources import jobs, metadata, naming
from lprl_operator.resources.settings import RenderSettings

ROLE = "finalise"


def finalise_document(job: LowPrecisionRLJob, name: str, uid: str, config: ConvertConfig, settings: RenderSettings) -> dict[str, Any]:
    """The Job, created when the Indexed Job `name` (with this uid) is complete. It belongs to that Job and goes with it."""
    labels = metadata.shared_labels(config.content_key, ROLE)
    container = jobs.container(job, ROLE, jobs.workload("finalise", jobs.CONVERT_KEY), config.source, settings)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": naming.finalise_job(name),
            "namespace": job.metadata.namespace,
            "labels": labels | metadata.preparing_queue_labels(job),
            "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": uid}],
        },
        "spec": {
            "backoffLimit": jobs.RETRIES,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": jobs.failure_policy(),
            "template": jobs.template(job, labels, {jobs.CONVERT_KEY: config.document()}, (container,), settings),
        },
    }
