"""What inspect, conversion and finalise Jobs have in common: the failure policy and the pod around one command.

Their configuration lies in annotations of the pod template: a Job and what it is to do are one object, which exists or does not,
is shared or deleted as one, and cannot be left behind by a crash between two writes.
"""

import json
from collections.abc import Mapping
from typing import Any

from lprl_api.names import ExitCode
from lprl_api.spec.job import LowPrecisionRLJob
from lprl_api.spec.sources import ModelSource
from lprl_operator.resources import needs, pods, storage
from lprl_operator.resources.settings import RenderSettings

INSPECT_KEY = "inspect.json"
REFERENCE_KEY = "reference.json"
CONVERT_KEY = "convert.json"
RETRIES = 3
"""Retries of a crashed pod (per index); user errors, full volumes and disruptions are not counted here."""


def failure_policy() -> dict[str, Any]:
    """Disruptions are not failures; user errors and full volumes are not worth a retry (rules match in order)."""
    return {
        "rules": [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [ExitCode.USER_ERROR, ExitCode.STORAGE_FULL]}},
        ]
    }


def workload(command: str, config_key: str) -> tuple[str, ...]:
    """Command line of a workload subcommand that reads one configuration file."""
    return ("python", "-m", "lprl_workload", command, "--config", f"{storage.CONFIG_FOLDER}/{config_key}")


def source_env(source: ModelSource) -> tuple[dict[str, Any], ...]:
    """Credentials a source is downloaded with, by reference."""
    found = []
    if source.hugging_face is not None and source.hugging_face.token_secret is not None:
        found.append(pods.secret("HF_TOKEN", source.hugging_face.token_secret))
    if source.s3 is not None and source.s3.secret is not None:
        for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            found.append({"name": key, "valueFrom": {"secretKeyRef": {"name": source.s3.secret, "key": key}}})
    return tuple(found)


def container(job: LowPrecisionRLJob, name: str, command: tuple[str, ...], source: ModelSource, settings: RenderSettings) -> pods.Container:
    """The one container of such a pod, with every volume of the job."""
    return pods.Container(
        name=name,
        args=command,
        env=source_env(source),
        resources=needs.conversion(job.spec, settings),
        mounts=(*storage.user_mounts(job.spec), storage.carried(())[1]),
    )


def template(
    job: LowPrecisionRLJob,
    labels: Mapping[str, str],
    files: Mapping[str, Any],
    containers: tuple[pods.Container, ...],
    settings: RenderSettings,
) -> dict[str, Any]:
    """Pod template whose last container does the work; those before it run first, one after the other.

    `files`: documents by the name of the JSON file they are read from.
    """
    pod = pods.Pod(
        role="conversion",
        containers=containers[-1:],
        init_containers=containers[:-1],
        labels=labels,
        annotations={storage.annotation(name): canonical(document) for name, document in files.items()},
        volumes=(*storage.user_volumes(job.spec), storage.carried(files)[0]),
    )
    return pods.pod_template(pod, job.spec.pod_template, settings)


def config_map(metadata: dict[str, Any], documents: Mapping[str, Any]) -> dict[str, Any]:
    """An immutable ConfigMap whose values are JSON documents. Its name carries the hash of its content."""
    data = {key: canonical(document) for key, document in documents.items()}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "immutable": True, "data": data}


def canonical(document: Any) -> str:
    """JSON with sorted keys: equal values are equal bytes."""
    return json.dumps(document, sort_keys=True, indent=1)
