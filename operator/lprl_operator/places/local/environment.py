"""A container of a pod template -> command line and environment on this machine."""

import os
import re
import shutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lprl_api import names
from lprl_api.errors import UserError
from lprl_operator.places.local.files import write_text
from lprl_operator.places.local.folders import Folders

_REFERENCE = re.compile(r"\$\(([A-Za-z_][A-Za-z0-9_]*)\)")
_NOT_INHERITED = ("LPRL_", "RAY_", "JOB_COMPLETION_INDEX", "KUBERNETES_", "POD_")
_SHARED_MOUNTS = ("/tmp/ray", "/dev/shm")
"""Mounts that are the machine's own here; Ray gets a folder of its own through --temp-dir."""
DEFAULTS = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1"}
"""One thread per process unless the pod says otherwise: many processes share this machine, and results do not depend on it."""


@dataclass(frozen=True, slots=True)
class PodContext:
    """What a container may learn of its pod."""

    name: str
    uid: str
    namespace: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    folder: Path
    env: Mapping[str, str]
    """Set by the controller, over the template: completion index, Ray address and token."""
    host: str = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Invocation:
    """What is executed."""

    command: list[str]
    env: dict[str, str]


def link_volumes(pod_spec: Mapping[str, Any], container: Mapping[str, Any], context: PodContext, folders: Folders) -> dict[str, Path]:
    """Return local folders by mount path; claims mounted under /volumes also become links under the volumes root."""
    volumes = {v["name"]: v for v in pod_spec.get("volumes", ())}
    found: dict[str, Path] = {}
    for mount in container.get("volumeMounts", ()):
        volume, path = volumes[mount["name"]], mount["mountPath"]
        if "persistentVolumeClaim" in volume:
            claim = folders.claim(volume["persistentVolumeClaim"]["claimName"])
            found[path] = claim
            if path.startswith(f"{names.DEFAULT_VOLUMES_ROOT}/"):
                _link(folders.mounts / path.removeprefix(f"{names.DEFAULT_VOLUMES_ROOT}/"), claim)
        elif "configMap" in volume:
            found[path] = folders.configmaps / volume["configMap"]["name"]
        elif "secret" in volume:
            found[path] = folders.secrets / volume["secret"]["secretName"]
        elif "downwardAPI" in volume:
            found[path] = _downward_folder(mount["name"], volume["downwardAPI"]["items"], context)
    return found


def _downward_folder(name: str, items: Iterable[Mapping[str, Any]], context: PodContext) -> Path:
    folder = context.folder / "downward" / name
    for item in items:
        write_text(folder / item["path"], _field(item["fieldRef"]["fieldPath"], context))
    return folder


def _link(link: Path, target: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    if link.is_symlink() and Path(os.readlink(link)) == target:
        return
    fresh = link.with_name(f".{link.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    os.replace(fresh, link)


def scratch_folders(pod_spec: Mapping[str, Any], container: Mapping[str, Any], context: PodContext) -> dict[str, Path]:
    """Return a folder of the pod for each emptyDir mount, /dev/shm and /tmp/ray excepted."""
    empty = {v["name"] for v in pod_spec.get("volumes", ()) if "emptyDir" in v}
    found: dict[str, Path] = {}
    for mount in container.get("volumeMounts", ()):
        if mount["name"] in empty and mount["mountPath"] not in _SHARED_MOUNTS:
            folder = context.folder / "scratch" / mount["name"]
            folder.mkdir(parents=True, exist_ok=True)
            found[mount["mountPath"]] = folder
    return found


def resolve(
    pod_spec: Mapping[str, Any], container: Mapping[str, Any], context: PodContext, folders: Folders, command: list[str] | None = None
) -> Invocation:
    """Return what to execute for a container; `command` replaces the template's (KubeRay makes `ray start` itself).

    Paths of the template are those of the container, `command` names this machine's: below /tmp, too, where the template has a folder.

    Raises:
        UserError: a Secret or ConfigMap the container needs is not on this machine; the message names the file to write.

    """
    local = {**link_volumes(pod_spec, container, context, folders), **scratch_folders(pod_spec, container, context)}
    env = {k: v for k, v in os.environ.items() if not k.startswith(_NOT_INHERITED)}
    env.update({k: v for k, v in DEFAULTS.items() if k not in os.environ or k == "OMP_NUM_THREADS"})
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env.get('PATH', os.defpath)}"
    declared: dict[str, str] = {}
    for entry in container.get("env", ()):
        value = _value(entry, container["name"], context, folders)
        declared[entry["name"]] = _to_local(_expand(value, declared), local)
    env.update(declared)
    env.update(context.env)
    env[names.ENV_VOLUMES_ROOT] = str(folders.mounts)
    env[names.ENV_LOCAL_CONFIGMAPS] = str(folders.configmaps)
    if folders.sandboxes.exists():
        env[names.ENV_SANDBOX_COMMANDS] = folders.sandboxes.read_text()
    env[names.ENV_TERMINATION_LOG] = str(context.folder / container["name"] / "termination-log")
    folders.mounts.mkdir(parents=True, exist_ok=True)
    there = {} if command else local
    line = command or [*container.get("command", ()), *container.get("args", ())]
    return Invocation(_executable([_to_local(_expand(word, env), there) for word in line], env), env)


def _executable(line: list[str], env: Mapping[str, str]) -> list[str]:
    if line[0] in ("python", "python3"):
        return [sys.executable, *line[1:]]
    return [shutil.which(line[0], path=env["PATH"]) or line[0], *line[1:]]


def _expand(text: str, env: Mapping[str, str]) -> str:
    """Replace $(NAME) as the kubelet does; unknown names stay as they are."""
    return _REFERENCE.sub(lambda match: env.get(match[1], match[0]), text)


def _to_local(text: str, local: Mapping[str, Path]) -> str:
    """Replace a path below a mount by the folder that stands for it, longest mount first."""
    for mount in sorted(local, key=len, reverse=True):
        if text == mount or text.startswith(f"{mount}/"):
            return str(local[mount]) + text[len(mount) :]
    return text


def _value(entry: Mapping[str, Any], container: str, context: PodContext, folders: Folders) -> str:
    source = entry.get("valueFrom")
    if source is None:
        return str(entry.get("value", ""))
    if "fieldRef" in source:
        return _field(source["fieldRef"]["fieldPath"], context)
    if "secretKeyRef" in source:
        if entry["name"] in context.env:
            return context.env[entry["name"]]
        return _kept(folders.secrets, "Secret", source["secretKeyRef"], entry["name"])
    if "configMapKeyRef" in source:
        ref = source["configMapKeyRef"]
        return _kept(folders.configmaps, "ConfigMap", ref, entry["name"])
    raise UserError(
        f"container {container}: env {entry['name']} has a source a local run does not know: {', '.join(source)}",
        "give it as a value or a Secret key",
    )


def _field(path: str, context: PodContext) -> str:
    plain = {
        "metadata.name": context.name,
        "metadata.uid": context.uid,
        "metadata.namespace": context.namespace,
        **dict.fromkeys(("status.podIP", "status.podIPs", "status.hostIP", "status.hostIPs"), context.host),
        "spec.nodeName": "local",
        "spec.serviceAccountName": "local",
    }
    if path in plain:
        return plain[path]
    match = re.fullmatch(r"metadata\.(labels|annotations)\['([^']+)'\]", path)
    if match is None:
        raise UserError(f"fieldRef {path}: not known to a local run", f"known: {', '.join(plain)}, metadata.labels['...']")
    return (context.labels if match[1] == "labels" else context.annotations).get(match[2], "")


def _kept(root: Path, kind: str, ref: Mapping[str, Any], variable: str) -> str:
    path: Path = root / ref["name"] / ref["key"]
    try:
        return path.read_text().rstrip("\n")
    except FileNotFoundError:
        if ref.get("optional"):
            return ""
        mode = " (mode 600)" if kind == "Secret" else ""
        raise UserError(
            f"{kind} {ref['name']} has no key {ref['key']} here ({variable} needs it)", f"write the value into {path}{mode}"
        ) from None


def write_secret(folders: Folders, name: str, key: str, value: str) -> None:
    """Write a Secret key only this user may read."""
    write_text(folders.secrets / name / key, value, 0o600)
