"""Volumes of spec.volumes, scratch space and shared memory, as pod volumes and mounts."""

from collections.abc import Iterable
from typing import Any

from lprl_api import names
from lprl_api.spec.job import LowPrecisionRLJobSpec
from lprl_operator.resources import naming

CONFIG_FOLDER = "/etc/lprl"
"""Where every pod finds its configuration."""


def _volume_name(name: str) -> str:
    return naming.fitted(f"vol-{name}", naming.MAX_LABEL_VALUE)


def user_volumes(spec: LowPrecisionRLJobSpec, only: Iterable[str] | None = None) -> list[dict[str, Any]]:
    """Pod volumes for entries of spec.volumes (all of them, or those named), in sorted order."""
    wanted = sorted(spec.volumes) if only is None else sorted(set(only))
    return [
        {
            "name": _volume_name(name),
            "persistentVolumeClaim": {"claimName": spec.volumes[name].persistent_volume_claim, "readOnly": spec.volumes[name].read_only},
        }
        for name in wanted
    ]


def user_mounts(spec: LowPrecisionRLJobSpec, only: Iterable[str] | None = None) -> list[dict[str, Any]]:
    """Mounts of the same volumes at /volumes/NAME."""
    wanted = sorted(spec.volumes) if only is None else sorted(set(only))
    return [
        {
            "name": _volume_name(name),
            "mountPath": f"{names.DEFAULT_VOLUMES_ROOT}/{name}",
            "readOnly": spec.volumes[name].read_only,
        }
        for name in wanted
    ]


def scratch(name: str, path: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """An emptyDir and its mount: the root file system is read-only."""
    return {"name": name, "emptyDir": {}}, {"name": name, "mountPath": path}


def shared_memory(size: str | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """/dev/shm in memory, shared by the containers of a pod; counts against the pod's memory."""
    limit = {"medium": "Memory"} if size is None else {"medium": "Memory", "sizeLimit": size}
    return {"name": "shm", "emptyDir": limit}, {"name": "shm", "mountPath": "/dev/shm"}


def config(config_map: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A ConfigMap mounted at /etc/lprl."""
    return {"name": "config", "configMap": {"name": config_map}}, _config_mount()


def carried(files: Iterable[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Files the pod itself carries, as annotations `lprl.dev/FILE`, mounted at /etc/lprl (downward API)."""
    items = [{"path": name, "fieldRef": {"fieldPath": f"metadata.annotations['{annotation(name)}']"}} for name in files]
    return {"name": "config", "downwardAPI": {"items": items}}, _config_mount()


def annotation(file: str) -> str:
    """Annotation a pod carries a configuration file in."""
    return f"{names.GROUP}/{file}"


def _config_mount() -> dict[str, Any]:
    return {"name": "config", "mountPath": CONFIG_FOLDER, "readOnly": True}
