"""What a test sees: one namespace with jobs in it, their children, and the log of their drivers."""

import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from tests.control_plane.harness.api import JSON_PATCH, ApiError, Document
from tests.control_plane.harness.manifests import Manifest
from tests.control_plane.harness.plane import ControlPlane
from tests.control_plane.harness.proof import check_log, check_status
from tests.control_plane.harness.recorder import Recorder

from lprl_api import names

T = TypeVar("T")
JOB = names.KIND
CHILDREN = ("Job", "RayCluster", "Pod", "ConfigMap", "ServiceAccount", "Role", "RoleBinding", "NetworkPolicy", "Secret", "Service")
BRIEF = ("phase", "attempt", "restartsUsed", "restartNotBefore", "nodes", "training", "failures")
END_S = 900.0
"""Waits end as soon as they are fulfilled: this is for machines that have much else to do."""
POLL_S = 0.3
"""Eleven scenarios that wait side by side ask 36 times a second; a request costs some milliseconds of a processor."""
RELEASE_S = 3.0


class World:
    """One namespace of a control plane."""

    def __init__(self, plane: ControlPlane, namespace: str, driver_log: Path) -> None:
        self.plane, self.api, self.namespace, self._driver_log = plane, plane.api, namespace, driver_log
        self.timeline: dict[str, list[str]] = {}
        """Phases seen by `wait`, by job."""
        self.seen = Recorder(plane.kubeconfig, namespace)
        """Every object there ever was; runs once it is started."""
        self.cut_off: set[str] = set()
        """Jobs whose head's node a test cuts off: an old driver may then run until the fence ends it."""

    def apply(self, manifest: Manifest) -> Document:
        return self.api.create(manifest, self.namespace)

    def job(self, name: str) -> Document:
        found = self.api.get(JOB, self.namespace, name)
        phases = self.timeline.setdefault(name, [])
        phase = found.get("status", {}).get("phase", "")
        if phase and phases[-1:] != [phase]:
            phases.append(phase)
        return found

    def status(self, name: str) -> Document:
        found: Document = self.job(name).get("status", {})
        return found

    def condition(self, name: str, kind: str) -> Document:
        return next((c for c in self.status(name).get("conditions", ()) if c["type"] == kind), {})

    def patch(self, name: str, **spec: Any) -> None:
        """Change a job's spec."""
        self.wait(f"a change of {name}", lambda: self.api.patch(JOB, self.namespace, name, {"spec": spec}))

    def of(self, kind: str, selector: str = f"{names.LABEL_MANAGED_BY}={names.MANAGED_BY}") -> list[Document]:
        return self.api.list(kind, self.namespace, selector)

    def pods(self, role: str, attempt: int | None = None) -> list[Document]:
        more = f",{names.LABEL_ATTEMPT}={attempt}" if attempt is not None else ""
        return self.of("Pod", f"{names.LABEL_ROLE}={role}{more}")

    def wait(self, what: str, check: Callable[[], T], seconds: float = END_S, poll_s: float = POLL_S) -> T:
        """Return the first true answer; at the deadline fail with what the jobs say. Times out of the API server are waited out."""
        deadline, last = time.monotonic() + seconds, None
        while True:
            try:
                last = check()
                if last:
                    return last
            except ApiError as error:
                if error.status not in (0, 429, 500, 503, 504):
                    raise
            dead = self.plane.unexpected_ends()
            assert not dead, f"while waiting for {what}: {dead} ended, and no test ended it"
            if time.monotonic() >= deadline:
                raise AssertionError(f"after {seconds:g} s still not: {what}; last answer: {last!r:.300}\n{self.describe()}")
            time.sleep(poll_s)

    def wait_phase(self, name: str, *phases: str, seconds: float = END_S) -> Document:
        """Wait for one of the phases; an end that is none of them fails at once."""

        def check() -> Document | None:
            status = self.status(name)
            phase = status.get("phase")
            if phase in ("Failed", "Succeeded") and phase not in phases:
                raise AssertionError(f"{name} is {phase}, not {phases}\n{self.describe()}")
            return status if phase in phases else None

        found = self.wait(f"{name} {'/'.join(phases)}", check, seconds)
        assert found is not None
        return found

    def wait_reason(self, name: str, kind: str, reason: str, seconds: float = END_S) -> Document:
        """Wait until a condition has a reason."""

        def check() -> Document | None:
            found = self.condition(name, kind)
            return found if found.get("reason") == reason else None

        found = self.wait(f"{name} {kind}={reason}", check, seconds)
        assert found is not None
        return found

    def wait_gone(self, kind: str, name: str, seconds: float = END_S) -> None:
        self.wait(f"{kind} {name} gone", lambda: self.api.find(kind, self.namespace, name) is None, seconds)

    def orphans(self) -> list[str]:
        """Every object of ours in the namespace, and what KubeRay and the Job controller made of them."""
        ours = f"{names.LABEL_MANAGED_BY}={names.MANAGED_BY}"
        found = [(k, o) for k in CHILDREN for o in self.api.list(k, self.namespace, ours)]
        found += [(k, o) for k in ("Pod", "Service", "Secret") for o in self.api.list(k, self.namespace, "ray.io/cluster")]
        found += [("Secret", o) for o in self.api.list("Secret", self.namespace)]
        return sorted({f"{kind} {o['metadata']['name']}" for kind, o in found})

    def release(self, role: str) -> None:
        """Let held pods of a role end, one by one, and those that come within RELEASE_S: the Job controller makes one, then the others."""
        key, until = f"sim.lprl.dev~1{role}-hold", time.monotonic() + RELEASE_S
        while time.monotonic() < until:
            for pod in self.pods(role):
                if f"sim.lprl.dev/{role}-hold" in (pod["metadata"].get("annotations") or {}):
                    change = [{"op": "remove", "path": f"/metadata/annotations/{key}"}]
                    try:
                        self.api.patch("Pod", self.namespace, pod["metadata"]["name"], change, JSON_PATCH)
                    except ApiError as error:
                        if error.status != 404:  # one that was lost may have gone since the list
                            raise
            time.sleep(0.2)

    def script(self, job: str, **script: Any) -> None:
        """Change what a running driver does."""
        for pod in self.pods("head"):
            if pod["metadata"]["labels"][names.LABEL_JOB] == job:
                note = {"metadata": {"annotations": {"sim.lprl.dev/driver": json.dumps(script)}}}
                try:
                    self.api.patch("Pod", self.namespace, pod["metadata"]["name"], note)
                except ApiError as error:
                    if error.status != 404:  # gone since the list
                        raise

    def driver_log(self, job: str | None = None, event: str | None = None) -> list[Document]:
        """What the drivers of this namespace did, in order."""
        lines = (json.loads(line) for line in self._driver_log.read_text().splitlines() if f'"{self.namespace}"' in line)
        return [e for e in lines if job in (None, e["job"]) and event in (None, e["event"])]

    def check_fence(self, job: str) -> None:
        """Nothing of a job ran twice, and no checkpoint was lost."""
        check_log(self.driver_log(job), job in self.cut_off)

    def check(self) -> None:
        """What must hold of every job of the namespace at any time; of those that ended, that nothing of them runs on."""
        self.seen.check()
        self.wait("statuses that are right", self._statuses_are_right)
        for name in {e["job"] for e in self.driver_log()}:
            self.check_fence(name)
        self.wait("what ended is released", lambda: not self._unreleased())

    def delete_all(self) -> None:
        """Delete every job."""
        for job in self.api.list(JOB, self.namespace):
            self.api.delete(JOB, self.namespace, job["metadata"]["name"])

    def clear(self) -> None:
        """Delete every job and wait until nothing of them is left."""
        self.delete_all()
        self.wait("no orphan left", lambda: not self.orphans() and not self.api.list(JOB, self.namespace))

    def _statuses_are_right(self) -> bool:
        """A last report may still be on its way when a job has ended; what stays wrong is shown by `describe`."""
        try:
            for job in self.api.list(JOB, self.namespace):
                check_status(job["metadata"]["name"], job.get("status", {}))
        except AssertionError:
            return False
        return True

    def _unreleased(self) -> list[str]:
        """RayClusters of jobs that ended or are suspended."""
        jobs = {j["metadata"]["name"]: j.get("status", {}).get("phase") for j in self.api.list(JOB, self.namespace)}
        still = {name for name, phase in jobs.items() if phase in ("Succeeded", "Failed", "Suspended")}
        return [c["metadata"]["name"] for c in self.of("RayCluster") if c["metadata"]["labels"][names.LABEL_JOB] in still]

    def events(self, job: str) -> Counter[str]:
        """Reasons of the events on a job."""
        found = self.api.list("Event", self.namespace, fields=f"involvedObject.kind={JOB},involvedObject.name={job}")
        return Counter(e["reason"] for e in found)

    def describe(self) -> str:
        """Jobs with conditions, children and pods, for a failure's message."""
        lines = []
        try:
            for job in self.api.list(JOB, self.namespace):
                status = job.get("status", {})
                brief = {
                    k: status.get(k) for k in ("phase", "attempt", "restartsUsed", "restartNotBefore", "nodes", "training", "failures")
                }
                lines.append(f"{job['metadata']['name']}: {json.dumps(brief)}")
                for c in status.get("conditions", ()):
                    lines.append(f"  {c['type']}={c['status']} {c['reason']}: {c['message'][:300]}")
            for kind in ("Job", "RayCluster"):
                for o in self.of(kind):
                    lines.append(f"  {kind} {o['metadata']['name']} {json.dumps(o.get('status', {}))[:400]}")
            for pod in self.of("Pod"):
                meta, s = pod["metadata"], pod["status"]
                going = " deleting" if "deletionTimestamp" in meta else ""
                lines.append(f"  Pod {meta['name']} {s.get('phase')}{going} on {pod['spec'].get('nodeName')}")
        except ApiError as error:
            lines.append(str(error))
        lines.append(f"  seen: {self.timeline}")
        return "\n".join(lines)
