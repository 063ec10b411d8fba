"""Pod templates: the restricted Pod Security profile, and the user's podTemplate merged in (never replacing ours).

Merging: mappings are merged, lists appended; where both sides set one value ours stays, except images, CPU and memory,
which are the user's to choose. Settings of a role come on top of those for all pods.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from lprl_api.base import Contract
from lprl_api.spec.pod_settings import EnvVar, PodSettings, PodTemplate, Resources
from lprl_api.spec.sources import SecretKey
from lprl_operator.resources import storage
from lprl_operator.resources.settings import RenderSettings

Role = Literal["head", "workers", "rollout", "conversion"]
USER_ID = 1000
"""The unprivileged user of the images; volumes are group-owned by it."""
TUNING = ("NCCL_", "CUDA_", "NVTE_")
"""Prefixes of variables whose defaults a user may replace."""


@dataclass(frozen=True, slots=True)
class Container:
    """One container before security and user settings are added."""

    name: str
    args: tuple[str, ...] = ()
    """Full command line; empty where KubeRay makes it (`ray start ...`)."""
    env: tuple[dict[str, Any], ...] = ()
    resources: Resources = field(default_factory=Resources)
    """With the user's settings in them (needs.py)."""
    mounts: tuple[dict[str, Any], ...] = ()
    ports: tuple[dict[str, Any], ...] = ()
    capabilities: tuple[str, ...] = ()
    pre_stop: tuple[str, ...] = ()
    """Command run when the pod is to go; the container hears of it (SIGTERM) when the command has ended."""


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod template before user settings are merged."""

    role: Role
    containers: tuple[Container, ...]
    labels: Mapping[str, str]
    annotations: Mapping[str, str] = field(default_factory=dict)
    volumes: tuple[dict[str, Any], ...] = ()
    init_containers: tuple[Container, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further keys of the pod spec (serviceAccountName, affinity, ...)."""
    grace_seconds: int = 60


def layers(template: PodTemplate, role: Role) -> tuple[PodSettings, ...]:
    """Settings that apply to a role, weakest first. Rollout workers are workers too."""
    named: dict[Role, tuple[PodSettings | None, ...]] = {
        "head": (template.head,),
        "workers": (template.workers,),
        "rollout": (template.workers, template.rollout),
        "conversion": (template.conversion,),
    }
    return (template, *(s for s in named[role] if s is not None))


def merge(ours: Any, theirs: Any) -> Any:
    """Merge two JSON values: mappings by key, lists appended (without repeats), else ours. Returns fresh values."""
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        both = {k: merge(v, theirs[k]) if k in theirs else merge(v, None) for k, v in ours.items()}
        return {**both, **{k: merge(v, None) for k, v in theirs.items() if k not in ours}}
    if isinstance(ours, list | tuple):
        extra = [x for x in theirs if x not in ours] if isinstance(theirs, list | tuple) else []
        return [merge(x, None) for x in (*ours, *extra)]
    if isinstance(ours, Mapping):
        return {k: merge(v, None) for k, v in ours.items()}
    return ours


def field_of_pod(name: str, path: str) -> dict[str, Any]:
    """An environment variable that says what the pod's metadata says: the same text in every template."""
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def value(name: str, text: str) -> dict[str, Any]:
    """An environment variable with a plain value."""
    return {"name": name, "value": text}


def secret(name: str, key: SecretKey) -> dict[str, Any]:
    """An environment variable taken from a Secret; the value itself never passes through the operator."""
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": key.name, "key": key.key}}}


def pod_template(pod: Pod, template: PodTemplate, settings: RenderSettings) -> dict[str, Any]:
    """Return the finished `{metadata, spec}`."""
    user = layers(template, pod.role)
    tmp_volume, tmp_mount = storage.scratch("tmp", "/tmp")
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": pod.grace_seconds,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER_ID,
            "runAsGroup": USER_ID,
            "fsGroup": USER_ID,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(c, pod.role, user, settings, tmp_mount) for c in pod.containers],
        "volumes": [tmp_volume, *pod.volumes],
        **pod.extra,
    }
    if pod.init_containers:
        spec["initContainers"] = [_container(c, pod.role, user, settings, tmp_mount) for c in pod.init_containers]
    meta = {"labels": dict(pod.labels), "annotations": dict(pod.annotations)}
    found: dict[str, Any] = {"metadata": {k: v for k, v in meta.items() if v}, "spec": spec}
    for layer in reversed(user):  # strongest first: what is there stays
        found = merge(found, _layer_document(layer))
    _prefer_user_scalars(found["spec"], user)
    return found


def _layer_document(layer: PodSettings) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "nodeSelector": dict(layer.node_selector),
        "tolerations": [said(toleration) for toleration in layer.tolerations],
        "affinity": said(layer.affinity) if layer.affinity is not None else {},
        "imagePullSecrets": [{"name": n} for n in layer.image_pull_secrets],
        "schedulingGates": [{"name": n} for n in layer.scheduling_gates],
    }
    meta = {"labels": dict(layer.labels), "annotations": dict(layer.annotations)}
    return {"metadata": {k: v for k, v in meta.items() if v}, "spec": {k: v for k, v in spec.items() if v}}


def said(model: Contract) -> dict[str, Any]:
    """What a user said, as a document: without what is empty or a default, but with empty objects, which mean something to Kubernetes."""
    found: dict[str, Any] = {}
    for name, field_ in type(model).model_fields.items():
        given = getattr(model, name)
        if isinstance(given, Contract):
            found[field_.alias or name] = said(given)
        elif given not in (None, (), {}, "", field_.default):
            found[field_.alias or name] = _plain(given)
    return found


def _plain(given: Any) -> Any:
    if isinstance(given, tuple):
        return [said(item) if isinstance(item, Contract) else item for item in given]
    return dict(given) if isinstance(given, Mapping) else given


def _prefer_user_scalars(spec: dict[str, Any], user: Sequence[PodSettings]) -> None:
    for layer in user:
        if layer.priority_class_name is not None:
            spec["priorityClassName"] = layer.priority_class_name
        if layer.scheduler_name is not None:
            spec["schedulerName"] = layer.scheduler_name


def image(role: Role, user: Sequence[PodSettings], settings: RenderSettings) -> str:
    """The image of a role: the user's for the role, else for all pods, else the operator's."""
    ours = (settings.head_image or settings.image) if role == "head" else settings.image
    return next((layer.image for layer in reversed(user) if layer.image is not None), ours)


def user_image(template: PodTemplate, role: Role) -> str | None:
    """The image a user chose for a role, None where it is the operator's."""
    return next((layer.image for layer in reversed(layers(template, role)) if layer.image is not None), None)


def user_env(template: PodTemplate, role: Role) -> dict[str, EnvVar]:
    """The variables a user set for a role, by name."""
    return {e.name: e for layer in layers(template, role) for e in layer.env}


def _container(
    container: Container, role: Role, user: Sequence[PodSettings], settings: RenderSettings, tmp_mount: dict[str, Any]
) -> dict[str, Any]:
    env, needed = _environment(container, user), container.resources
    capabilities: dict[str, list[str]] = {"drop": ["ALL"]}
    if container.capabilities:
        capabilities["add"] = list(container.capabilities)
    policy = next((layer.image_pull_policy for layer in reversed(user) if layer.image_pull_policy is not None), settings.image_pull_policy)
    found: dict[str, Any] = {
        "name": container.name,
        "image": image(role, user, settings),
        "imagePullPolicy": policy,
        "env": [dict(e) for e in env],
        "resources": {k: dict(v) for k, v in (("requests", needed.requests), ("limits", needed.limits)) if v},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": capabilities,
        },
        "volumeMounts": [dict(tmp_mount), *(dict(m) for m in container.mounts)],
    }
    if container.args:
        found["command"] = list(container.args)
        # Python writes the message itself; a container killed before it could leaves the end of its log.
        found["terminationMessagePolicy"] = "FallbackToLogsOnError"
    if container.pre_stop:
        found["lifecycle"] = {"preStop": {"exec": {"command": list(container.pre_stop)}}}
    if container.ports:
        found["ports"] = [dict(p) for p in container.ports]
    return found


def _environment(container: Container, user: Sequence[PodSettings]) -> list[dict[str, Any]]:
    """Ours, then the user's; of one name ours stays, except that library tuning is the user's to choose."""
    theirs = {e.name: e for layer in user for e in layer.env}
    ours = [value("HOME", "/tmp"), *container.env]
    kept = [e for e in ours if not (e["name"] in theirs and e["name"].startswith(TUNING))]
    names = {e["name"] for e in kept}
    added = [e for e in theirs.values() if e.name not in names]
    return [*kept, *(_variable(e) for e in added)]


def _variable(entry: EnvVar) -> dict[str, Any]:
    if entry.secret is not None:
        return secret(entry.name, entry.secret)
    if entry.value_from is not None:
        return {"name": entry.name, "valueFrom": said(entry.value_from)}
    return value(entry.name, entry.value or "")
