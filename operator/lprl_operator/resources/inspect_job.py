"""The Job that reads (downloading it first when it is remote) the source model and reports its shape and fingerprint."""

from typing import Any

from lprl_api.spec.job import LowPrecisionRLJob
from lprl_api.wire.runconfig import InspectConfig
from lprl_operator.resources import jobs, metadata, naming
from lprl_operator.resources.settings import RenderSettings

ROLE = "inspect"


def inspect_document(
    job: LowPrecisionRLJob, config: InspectConfig, reference: InspectConfig | None, settings: RenderSettings
) -> dict[str, Any]:
    """The Job. A remote KL reference is downloaded by an init container, so that it is there before the run."""
    content = {jobs.INSPECT_KEY: config.document()}
    containers = [jobs.container(job, ROLE, jobs.workload("inspect", jobs.INSPECT_KEY), config.source, settings)]
    if reference is not None:
        content[jobs.REFERENCE_KEY] = reference.document()
        containers.insert(0, jobs.container(job, "reference", jobs.workload("inspect", jobs.REFERENCE_KEY), reference.source, settings))
    meta = metadata.metadata(job, naming.inspect_job(job.metadata.name), ROLE)
    meta["labels"] |= metadata.preparing_queue_labels(job)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": meta,
        "spec": {
            "backoffLimit": jobs.RETRIES,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": jobs.failure_policy(),
            "template": jobs.template(job, metadata.labels(job, ROLE), content, tuple(containers), settings),
        },
    }
