"""PURE: which field of a job (or value of the chart) sets what a quota or LimitRange misses in a pod it refuses."""

import re

from lprl_operator.resources import needs

FIELDS = {
    "ray-head": ("spec.podTemplate.head.resources", "headLimits"),
    "driver": ("spec.podTemplate.driver.resources", "driverLimits"),
    "ray-worker": ("spec.podTemplate.workers.resources", "workerLimits"),
    **dict.fromkeys(("inspect", "reference", "convert", "finalise"), ("spec.conversion.resources", "conversionLimits")),
}
"""Field of the job and limits of the chart (below config.resources), by container."""
PODS = {"head": ("ray-head", "driver"), "worker": ("ray-worker",), "job": ("inspect",)}
"""Containers of a pod in order."""
_MISSING = re.compile(r"(?P<what>(?:limits|requests)\.[\w./-]+) for: (?P<names>[\w,-]+)")
_ABOVE = re.compile(
    r"spec\.(?P<list>containers|initContainers)\[(?P<index>\d+)\]\.resources\.requests: .*must be less than or equal to (?P<name>\S+) limit"
)
_RANGE = re.compile(r"(?:maximum|minimum) (?P<name>\S+) usage per Container is \S+, but (?P<what>limit|request) is")
_NO_LIMIT = re.compile(r"maximum (?P<name>\S+) usage per Container is \S+\.\s+No limit is specified")


def explained(message: str, pod: str) -> str:
    """Return why a pod (head, worker or job) was refused, and what to set where that is known."""
    found = list(dict.fromkeys(_fields(message, pod)))
    return f"{message}; set {' and '.join(found)}" if found and message else message


def pod_of(message: str) -> str:
    """Whether a refusal KubeRay passes on is about the head or a worker: the pod's name tells."""
    return "head" if re.search(r'"[^"]*-head(-[a-z0-9]+)?"', message) else "worker"


def _fields(message: str, pod: str) -> list[str]:
    missing = [(name, m["what"]) for m in _MISSING.finditer(message) for name in m["names"].split(",")]
    if missing:
        return [_field(name, what) for name, what in missing if name in FIELDS]
    above = _ABOVE.search(message)
    if above is not None:
        container = PODS[pod][min(int(above["index"]), len(PODS[pod]) - 1)] if above["list"] == "containers" or pod == "job" else ""
        why = "; without it a LimitRange of the namespace sets one below the request"
        return [_field(container, f"limits.{above['name']}") + why] if container else []
    outside = _RANGE.search(message) or _NO_LIMIT.search(message)
    if outside is not None:
        wanted = f"{outside.groupdict().get('what') or 'limit'}s.{outside['name']}"
        return [_field(name, wanted) for name in PODS[pod]]
    return []


def _field(container: str, what: str) -> str:
    field, values = FIELDS[container]
    name = what.partition(".")[2]
    if name == needs.GPU_RESOURCE:
        return f"{field}.{what}"
    return f"{field}.{what} (for all jobs: config.resources.{values} of the chart)" if what.startswith("limits") else f"{field}.{what}"
