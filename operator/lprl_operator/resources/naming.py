"""Every name of every child. A job's name has at most 45 characters, so that each of these fits its kind's limit.

Invariants: names are DNS-1035 labels; a RayCluster's has at most 53 characters; everything an attempt owns carries the
attempt's number, in its name or (pods) in a label, so that nothing of attempt N is ever mistaken for something of attempt N+1.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from lprl_api import names

MAX_RAYCLUSTER = 53
MAX_LABEL_VALUE = 63
_KUBERAY_SECRET_CHARACTERS = 50


def content_hash(value: Mapping[str, Any] | str, length: int = 8) -> str:
    """Return the first hex digits of the sha256 of a string or of a mapping's canonical JSON."""
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def fitted(name: str, limit: int) -> str:
    """Return `name`, or when it is too long its beginning and a hash of the whole."""
    return name if len(name) <= limit else f"{name[: limit - 9].rstrip('-')}-{content_hash(name)}"


def inspect_job(job: str) -> str:
    """Name of the Job that inspects the source."""
    return f"{job}-inspect"


def conversion(content_key: str, target: str) -> str:
    """Name shared by every job that wants this content in this place (claim and folder)."""
    return f"lprl-convert-{content_key[:12]}-{content_hash(target)}"


def finalise_job(conversion_name: str) -> str:
    """Name of the one-pod Job that publishes a conversion."""
    return conversion_name.replace("lprl-convert-", "lprl-finalise-", 1)


def is_finalise_job(name: str) -> bool:
    """Whether a Job's name is that of one that publishes a conversion."""
    return name.startswith("lprl-finalise-")


def cluster(job: str, attempt: int) -> str:
    """Name of a RayCluster that is made for an attempt; later attempts run in it too."""
    return fitted(f"{job}-a{attempt}", MAX_RAYCLUSTER)


def auth_secret(cluster_name: str) -> str:
    """Name of the token Secret KubeRay makes for a RayCluster: the last 50 characters of its name."""
    return cluster_name[-_KUBERAY_SECRET_CHARACTERS:]


def progress(job: str, attempt: int) -> str:
    """Name of the ConfigMap through which driver and operator of an attempt talk."""
    return names.progress_configmap(job, attempt)


def driver_account(cluster_name: str) -> str:
    """Name of the ServiceAccount of the drivers of a RayCluster."""
    return f"{cluster_name}-driver"


def driver_role(job: str, attempt: int) -> str:
    """Name of the Role and RoleBinding of an attempt's driver."""
    return f"{cluster(job, attempt)}-driver"


def run_config(job: str, digest: str) -> str:
    """Name of the ConfigMap holding RunConfig."""
    return f"{job}-run-{digest}"


def network_policy(job: str) -> str:
    """Name of the NetworkPolicy."""
    return f"{job}-pods"
