"""PURE: which container's log is meant."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lprl_api import names
from lprl_api.errors import UserError
from lprl_api.names import Condition
from lprl_api.wire.status import Phase
from lprl_cli.cluster.table import phase
from lprl_cli.live import printable

Document = Mapping[str, Any]
_OF_POD = {
    "inspect": "inspect",
    "convert": "convert",
    "finalise": "finalise",
    "workers": "worker",
    "trainer": "worker",
    "rollout": "worker",
}


@dataclass(frozen=True)
class Source:
    """One container of a pod of a job."""

    pod: str
    container: str
    role: str
    """inspect, convert, finalise, head, driver, worker, `reference` or what another container of a pod template is called."""
    attempt: int | None
    state: str
    """waiting, running, terminated, with why."""
    exit_code: int | None
    restarts: int
    created: str
    node: str

    @property
    def name(self) -> str:
        """POD/CONTAINER."""
        return f"{self.pod}/{self.container}"


def sources(pods: Iterable[Document]) -> list[Source]:
    """Return the containers of pods, the newest pod last."""
    found = [source for pod in pods for source in _of_pod(pod)]
    return sorted(found, key=lambda s: (s.created, s.pod))


def _of_pod(pod: Document) -> Iterable[Source]:
    meta, spec, status = pod["metadata"], pod.get("spec") or {}, pod.get("status") or {}
    labels = meta.get("labels") or {}
    states = {s["name"]: s for key in ("initContainerStatuses", "containerStatuses") for s in status.get(key) or ()}
    text = str(labels.get(names.LABEL_ATTEMPT, ""))
    containers = spec.get("containers") or []
    main = containers[-1]["name"] if containers else ""
    for container in (*(spec.get("initContainers") or ()), *containers):
        name, state = container["name"], states.get(container["name"]) or {}
        word, code = _state(state.get("state") or {}, str(status.get("phase") or "Pending"))
        yield Source(
            pod=str(meta["name"]),
            container=name,
            role=_role(str(labels.get(names.LABEL_ROLE, "")), name, name == main),
            attempt=int(text) if text.isdigit() else None,
            state=word,
            exit_code=code,
            restarts=int(state.get("restartCount") or 0),
            created=str(meta.get("creationTimestamp", "")),
            node=str(spec.get("nodeName") or ""),
        )


def _role(label: str, container: str, is_main: bool) -> str:
    if label == "head":
        return {"ray-head": "head", "driver": "driver"}.get(container, container)
    role = _OF_POD.get(label, label)
    if role == "worker":
        return "worker" if container == "ray-worker" else container
    return role if container == role or is_main else container


def _state(state: Document, pod_phase: str) -> tuple[str, int | None]:
    if (end := state.get("terminated")) is not None:
        code = int(end.get("exitCode", 1))
        return f"ended ({end.get('reason') or 'exit'} {code})", code
    if "running" in state:
        return "running", None
    if not state and pod_phase != "Pending":
        return "not reported", None
    why = printable((state.get("waiting") or {}).get("reason")) or pod_phase
    return f"waiting ({why})", None


def stage(document: Document) -> tuple[str, ...]:
    """Return the roles whose log tells what a job is doing, the best first."""
    status = document.get("status") or {}
    now = phase(document)
    true = {c["type"] for c in status.get("conditions") or () if c["status"] == "True"}
    if now == Phase.CONVERTING or (now != Phase.INSPECTING and not status.get("attempt") and Condition.INSPECTED in true):
        return ("finalise", "convert")
    return ("driver",) if status.get("attempt") and now != Phase.INSPECTING else ("inspect",)


def choose(
    found: Sequence[Source], document: Document, role: str | None = None, attempt: int | None = None, match: str | None = None
) -> Source:
    """Return the container meant: of the wanted role (default: the phase's), of the newest attempt unless one is named.

    Raises:
        UserError: there is none; it says what there is, or why there is nothing yet.

    """
    name = document["metadata"]["name"]
    roles = (role,) if role is not None else () if match is not None else ("driver",) if attempt is not None else stage(document)
    for one in roles or (None,):
        fits = [s for s in found if one in (None, s.role) and attempt in (None, s.attempt) and (match is None or match in s.name)]
        newest = max((s.attempt or 0 for s in fits), default=0)
        fits = [s for s in fits if (s.attempt or 0) == newest]
        if fits:
            return _best(fits)
    wanted = " or ".join(roles) or "container"
    more = "".join([f" of attempt {attempt}" if attempt is not None else "", f" with {match!r} in POD/CONTAINER" if match else ""])
    raise UserError(
        f"{name} has no {wanted}{more} ({_why(document)})", _left(found, f"{name} -n {document['metadata'].get('namespace', 'default')}")
    )


def _best(fits: Sequence[Source]) -> Source:
    """Of workers the first that failed, else that runs: one lost rank ends them all. Of a Job's pods the one that runs, else the newest."""
    running = [s for s in fits if s.state == "running"]
    if fits[-1].role == "worker":
        failed = [s for s in fits if s.exit_code]
        return min(failed or running or fits, key=lambda s: s.pod)
    return (running or list(fits))[-1]


def _why(document: Document) -> str:
    text = printable((document.get("status") or {}).get("message"))
    return f"{phase(document)}{': ' + text if text else ''}"


def _left(found: Sequence[Source], asked: str) -> str:
    if found:
        return f"`kubectl lprl logs {asked} --list` shows what there is; pods of ended attempts are deleted with their logs"
    return f"no pod of it is there: not yet, or no longer (logs go with their pods); `kubectl lprl status {asked}` says more"
