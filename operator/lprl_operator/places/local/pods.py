"""Pods as folders: init containers one after the other, then all containers together."""

import shutil
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lprl_api.errors import UserError
from lprl_api.names import TERMINATION_MESSAGE_BYTES
from lprl_operator.decide.observed import ContainerState
from lprl_operator.places.local.environment import PodContext, resolve
from lprl_operator.places.local.files import read_json, write_json
from lprl_operator.places.local.folders import Folders
from lprl_operator.places.local.launcher import SUPERVISOR_LOST
from lprl_operator.places.local.process import Container, Exit

Phase = Literal["Pending", "Running", "Succeeded", "Failed"]
START_FAILED = 128
"""Exit code of a container that could not be started."""
MAX_GRACE_SECONDS = 20.0
MESSAGE_LOG_LINES = 20


@dataclass(frozen=True, slots=True)
class PodOrder:
    """What a controller wants started."""

    name: str
    owner: str
    """KIND/NAME of the object it belongs to."""
    template: Mapping[str, Any]
    namespace: str
    index: int = 0
    """Completion index, or number of the worker."""
    role: str = ""
    env: Mapping[str, str] | None = None
    commands: Mapping[str, list[str]] | None = None
    """Command lines by container name that replace the template's."""
    host: str = "127.0.0.1"


class LocalPod:
    """One pod. `pod.json` holds its identity, the containers' folders hold what happened; all else is computed."""

    def __init__(self, folder: Path, folders: Folders, record: dict[str, Any]) -> None:
        self.folder = folder
        self.record = record
        self._folders = folders
        self._order: PodOrder | None = None
        marker = f"{folders.state_id}:{record['uid']}:"
        self.init = [Container(folder / n, marker + n) for n in record["initContainers"]]
        self.main = [Container(folder / n, marker + n) for n in record["containers"]]

    @classmethod
    def create(cls, order: PodOrder, folders: Folders) -> "LocalPod":
        """Write the pod's record and start its first container."""
        folder = folders.pods / order.name
        if folder.exists():
            shutil.rmtree(folder)
        spec = order.template["spec"]
        record = {
            "name": order.name,
            "uid": uuid.uuid4().hex[:12],
            "owner": order.owner,
            "index": order.index,
            "role": order.role,
            "labels": dict(order.template.get("metadata", {}).get("labels", {})),
            "initContainers": [c["name"] for c in spec.get("initContainers", ())],
            "containers": [c["name"] for c in spec["containers"]],
            "createdAt": time.time(),
            "deleting": False,
        }
        write_json(folder / "pod.json", record)
        pod = cls(folder, folders, record)
        pod._order = order
        pod.step()
        return pod

    @classmethod
    def load_all(cls, folders: Folders) -> list["LocalPod"]:
        """Return the pods an earlier process left; none of them runs any more."""
        found = []
        for path in sorted(folders.pods.glob("*/pod.json")):
            record = read_json(path)
            if record is not None:
                found.append(cls(path.parent, folders, record))
        return found

    @property
    def name(self) -> str:
        """Name of the pod and of its folder."""
        return str(self.record["name"])

    @property
    def deleting(self) -> bool:
        """Whether it was asked to end."""
        return bool(self.record["deleting"])

    def lose(self) -> None:
        """Record that containers without an exit code ended with the process that supervised them."""
        for container in (*self.init, *self.main):
            if container.started_at is not None and container.ended() is None:
                container.record(137, SUPERVISOR_LOST)
        if not self.ended:
            self.main[0].record(137, SUPERVISOR_LOST)

    def step(self) -> None:
        """Start what is due: the next init container, or all containers once those are done."""
        if self._order is None or self.deleting:
            return
        for container in self.init:
            if container.started_at is None and container.ended() is None:
                self._start(container, "initContainers")
            ended = container.ended()
            if ended is None or ended.code != 0:
                return
        for container in self.main:
            if container.started_at is None and container.ended() is None:
                self._start(container, "containers")

    def _start(self, container: Container, group: str) -> None:
        assert self._order is not None
        order, name = self._order, container.folder.name
        spec = order.template["spec"]
        template = next(c for c in spec[group] if c["name"] == name)
        meta = order.template.get("metadata", {})
        context = PodContext(
            name=self.name,
            uid=str(self.record["uid"]),
            namespace=order.namespace,
            labels=meta.get("labels", {}),
            annotations=meta.get("annotations", {}),
            folder=self.folder,
            env=order.env or {},
            host=order.host,
        )
        container.folder.mkdir(parents=True, exist_ok=True)
        try:
            found = resolve(spec, template, context, self._folders, (order.commands or {}).get(name))
        except UserError as error:
            container.termination_log.write_text(f"{error.message}. {error.remedy}".strip())
            container.record(START_FAILED, "CreateContainerConfigError")
            return
        grace = min(float(spec.get("terminationGracePeriodSeconds", 30)), MAX_GRACE_SECONDS)
        container.start(found.command, found.env, self.folder, grace)

    def phase(self) -> Phase:
        """Kubernetes' phase of the pod."""
        if any((e := c.ended()) is not None and e.code != 0 for c in self.init):
            return "Failed"
        ends = [c.ended() for c in self.main]
        if any(e is None for e in ends):
            started = any(c.started_at is not None for c in self.main)
            if self.deleting and not any(c.started_at is not None and c.ended() is None for c in (*self.init, *self.main)):
                return "Failed"
            return "Running" if started else "Pending"
        return "Succeeded" if all(e is not None and e.code == 0 for e in ends) else "Failed"

    @property
    def ended(self) -> bool:
        """Whether no process of the pod runs any more and none will."""
        return self.phase() in ("Succeeded", "Failed")

    def last_exit(self) -> tuple[Exit, Container] | None:
        """Return how the pod's decisive container ended: the first one that failed, else the last one."""
        ends = [(e, c) for c in (*self.init, *self.main) if (e := c.ended()) is not None]
        failed = [pair for pair in ends if pair[0].code != 0]
        return failed[0] if failed else ends[-1] if ends else None

    def finished_at(self) -> float:
        """Unix time the last container ended."""
        return max((e.finished_at for c in (*self.init, *self.main) if (e := c.ended()) is not None), default=0.0)

    def disruption(self) -> str:
        """Reason of a DisruptionTarget condition: the machine's supervisor went away, like a node that was shut down."""
        lost = any((e := c.ended()) is not None and e.reason == SUPERVISOR_LOST for c in (*self.init, *self.main))
        return "TerminationByKubelet" if lost else ""

    def update(self, **values: Any) -> None:
        """Add to the pod's record."""
        self.record.update(values)
        write_json(self.folder / "pod.json", self.record)

    def delete(self) -> None:
        """Ask every container to end."""
        if not self.deleting:
            self.update(deleting=True)
        for container in (*self.init, *self.main):
            container.terminate()

    def forget(self) -> None:
        """Drop the pod object; its logs stay."""
        (self.folder / "pod.json").unlink(missing_ok=True)


def message_of(container: Container, ended: Exit) -> str:
    """Return the termination message, or the end of the log when a failed container wrote none."""
    written = container.message(TERMINATION_MESSAGE_BYTES)
    if written or ended.code == 0:
        return written
    return container.log_tail(MESSAGE_LOG_LINES)[-TERMINATION_MESSAGE_BYTES:]


def state_of(container: Container) -> ContainerState:
    """Return a container's state in Kubernetes' terms."""
    ended = container.ended()
    if ended is not None:
        reason = ended.reason or ("Completed" if ended.code == 0 else "Error")
        return ContainerState("terminated", reason, message_of(container, ended), ended.code)
    return ContainerState("running" if container.started_at is not None else "waiting")
