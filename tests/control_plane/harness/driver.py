"""Plays the driver container of every head pod: reports progress, obeys control.json, ends with an exit code and a message.

    python tests/control_plane/harness/driver.py --kubeconfig FILE --log FILE

A head pod's annotation `sim.lprl.dev/driver` holds a `Script` as JSON (a manifest's podTemplate.head.annotations carries it
there). Drivers wait until KubeRay counts every worker as ready, as the real one waits for its placement groups. The fence of
the real checkpoint store is kept per job (uid): a driver of an older attempt than the newest ends as FENCED.
Every start, step and end is a line of JSON in the log: tests prove from it that nothing ran twice.
"""

import argparse
import asyncio
import json
import random
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[3]))
from tests.control_plane.harness.api import MERGE, STRATEGIC
from tests.control_plane.harness.script import CUT_OFF, Script, Store
from tests.control_plane.harness.watching import Client, Document

from lprl_api import names
from lprl_api.checkpoint_ref import CheckpointRef
from lprl_api.names import ExitCode
from lprl_api.wire.progress import Control, Progress, StabilityReport, Termination

CONFIGMAPS = "/api/v1/namespaces/{}/configmaps/{}"
HANGS_IN = "rewards, 1 of 4 responses"
Said = tuple[int, str, str]
"""Exit code, reason, message."""


class Simulator:
    """One task per running driver."""

    def __init__(self, client: Client, log: Callable[..., None]) -> None:
        self.client, self.log = client, log
        self.clusters: dict[tuple[str, str], Document] = {}
        self._changed: dict[tuple[str, str], asyncio.Event] = {}
        self.pods: dict[str, Document] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.stores: dict[str, Store] = {}
        self.loaded = asyncio.Event()
        """Set by SIGUSR1: models that take long to load are loaded."""

    def saw_cluster(self, change: str, cluster: Document) -> None:
        key = (cluster["metadata"]["namespace"], cluster["metadata"]["name"])
        if change == "DELETED":
            self.clusters.pop(key, None)
        else:
            self.clusters[key] = cluster
        waiting = self._changed.pop(key, None)
        if waiting is not None:
            waiting.set()

    async def cluster_changes(self, namespace: str, name: str) -> None:
        """Wait for the next change of a RayCluster."""
        await self._changed.setdefault((namespace, name), asyncio.Event()).wait()

    def saw_pod(self, change: str, pod: Document) -> None:
        """Start the driver of a head that runs; end it with its pod."""
        uid = pod["metadata"]["uid"]
        self.pods[uid] = pod
        marked = "deletionTimestamp" in pod["metadata"] and not Script.of(pod).survives
        gone = change == "DELETED" or marked or pod["status"].get("phase") in ("Succeeded", "Failed")
        states = {s["name"]: s["state"] for s in pod["status"].get("containerStatuses", ())}
        gone = gone or (uid in self._tasks and any("terminated" in s for s in states.values()))
        if gone:
            task = self._tasks.pop(uid, None)
            self.pods.pop(uid, None)
            if task is not None:
                task.cancel()
        elif uid not in self._tasks and "running" in states.get("driver", {}):
            self._tasks[uid] = asyncio.create_task(self._life(uid, Driver(self, pod)))

    async def _life(self, uid: str, driver: "Driver") -> None:
        try:
            await driver.run()
        except asyncio.CancelledError:
            if not driver.ended:
                driver.say("killed")
            raise
        except Exception as error:  # a bug here must show in the log, not as a hanging test
            driver.say("bug", error=repr(error))


class Driver:
    """One attempt of one job."""

    def __init__(self, simulator: Simulator, pod: Document) -> None:
        meta, self._simulator, self._client = pod["metadata"], simulator, simulator.client
        self._uid = meta["uid"]
        self._namespace, self._name = meta["namespace"], meta["name"]
        self.job, self.attempt = meta["labels"][names.LABEL_JOB], int(meta["labels"][names.LABEL_ATTEMPT])
        self._cluster = meta["labels"]["ray.io/cluster"]
        self._sequence, self._asked, self._step, self._kept = 0, 0, 0, 0
        self._reported, self._moved, self._moved_at = 0.0, 0, 0.0
        self._control: Control | None = None
        self._owner: int | None = None
        self._last: Progress | None = None
        self.ended = False

    @property
    def script(self) -> Script:
        """Read anew at each step: tests change it."""
        return Script.of(self._simulator.pods[self._uid])

    def say(self, event: str, **more: Any) -> None:
        self._simulator.log(event=event, namespace=self._namespace, job=self.job, attempt=self.attempt, pod=self._uid, **more)

    async def run(self) -> None:
        """From the start of the container to its end."""
        self.say("container")
        control = await self._wait_for_workers()
        if control.suspend and not self.script.deaf:
            await self._end((ExitCode.SUSPENDED, names.Reason.SUSPENDED, "stopped while waiting for workers"))
            return
        cluster = self._simulator.clusters[self._namespace, self._cluster]
        owner = cluster["metadata"]["ownerReferences"][0]["uid"]
        store = self._simulator.stores.setdefault(owner, Store())
        if store.newest_attempt > self.attempt:
            self._owner = store.newest_attempt
            await self._end((ExitCode.FENCED, names.Reason.FENCED, f"attempt {store.newest_attempt} owns the folder"))
            return
        store.newest_attempt = self.attempt
        self._step = self._kept = store.step
        self.say("start", step=self._step, job_uid=owner)
        control = await self._report("loading")
        if self.script.loads_long:
            await self._simulator.loaded.wait()
        await self._end(await self._train(store, control))

    async def _train(self, store: Store, control: Control) -> Said:
        while True:
            said = await self._before_step(store, control)
            if said is not None:
                return said
            if self._step >= control.steps:
                await self._report("finished")
                return ExitCode.OK, "Succeeded", f"finished {self._step} steps"
            await asyncio.sleep(self.script.step_s * (random.uniform(0.5, 1.5) if self.script.jitter else 1.0))
            if store.newest_attempt > self.attempt:
                self._owner = store.newest_attempt
                return ExitCode.FENCED, names.Reason.FENCED, f"attempt {store.newest_attempt} owns the folder"
            hold = self.script.hold_at
            if hold is None or self._step < hold:
                self._step += 1
                self.say("step", step=self._step)
            if self._step % self.script.keep_every == 0 and self._step != self._kept:
                self._keep(store)
            if time.monotonic() - self._reported >= self.script.report_s:
                control = await self._report("training")

    def _keep(self, store: Store) -> None:
        store.step = self._kept = self._step
        self.say("kept", step=self._step)

    async def _before_step(self, store: Store, control: Control) -> Said | None:
        script = self.script
        if control.suspend and not script.deaf:
            self._keep(store)
            await self._report("stopping")
            return ExitCode.SUSPENDED, names.Reason.SUSPENDED, f"stopped at step {self._step}"
        if self._due(script.hang):
            self.say("hangs", step=self._step)
            while True:  # the main thread stands still, the reporting thread does not
                await self._report("training", moves=False)
                await asyncio.sleep(max(self.script.step_s, self.script.report_s))
        if self._due(script.stopped):
            self.say("stopped", step=self._step)
            await asyncio.Event().wait()
        if script.silent:
            await self._report("training")
            self.say("silent", step=self._step)
            await asyncio.Event().wait()
        if script.crash is not None and self._due(script.crash):
            return script.crash.get("code", 1), script.crash.get("reason", "Crash"), script.crash.get("message", "simulated")
        return None

    def _due(self, trouble: Mapping[str, Any] | None) -> bool:
        return trouble is not None and self.attempt in trouble["attempts"] and self._step >= trouble["step"]

    async def _wait_for_workers(self) -> Control:
        """Report as starting until every worker is there, or until it is asked to stop."""
        while True:
            control = await self._report("starting")
            try:
                async with asyncio.timeout(self.script.wait_s):
                    while not self._has_workers() and (self.script.deaf or not control.suspend):
                        await self._simulator.cluster_changes(self._namespace, self._cluster)
                return control
            except TimeoutError:
                pass

    def _has_workers(self) -> bool:
        cluster = self._simulator.clusters.get((self._namespace, self._cluster))
        if cluster is None:
            return False
        wanted = sum(g["replicas"] for g in cluster["spec"]["workerGroupSpecs"])
        return bool((cluster.get("status") or {}).get("readyWorkerReplicas", 0) >= wanted)

    async def _report(self, phase: Any, moves: bool = True) -> Control:
        """Patch progress, return the control found in the answer. Of a refused patch (the object is gone) the training takes no notice."""
        self._sequence += 1
        self._reported = time.monotonic()
        if moves:
            self._moved, self._moved_at = self._moved + 1, self._reported
        script = self.script
        report = Progress(
            attempt=self.attempt,
            sequence=self._sequence,
            moved=self._moved,
            still_seconds=self._reported - self._moved_at,
            waits_for="" if moves else HANGS_IN,
            phase=phase,
            step=self._step,
            steps=self._asked or self._step,
            reward=self._step / max(self._asked, 1),
            mismatch_k3=1e-4,
            tokens_per_second=1000.0,
            checkpoint=CheckpointRef(step=self._kept, path=f"checkpoints:{self.job}/step-{self._kept}") if self._kept else None,
            stability=StabilityReport.model_validate(script.stability or {}),
        )
        self._last = report
        text = report.model_dump_json(by_alias=True)
        path = CONFIGMAPS.format(self._namespace, names.progress_configmap(self.job, self.attempt))
        while True:
            status, found = await self._client.send("PATCH", path, {"data": {names.PROGRESS_KEY: text}}, MERGE)
            if status == 200:
                control = Control.model_validate_json(found["data"][names.CONTROL_KEY])
                self._asked, self._control = control.steps, control
                return control
            self.say("report-refused", status=status)
            if self._control is not None:
                return self._control
            await asyncio.sleep(1)

    async def _end(self, said: Said) -> None:
        code, reason, message = said
        self.ended = True
        self.say("end", code=int(code), step=self._step)
        if CUT_OFF in (self._simulator.pods[self._uid]["metadata"].get("annotations") or {}):
            return  # no kubelet tells of it
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        text = json.dumps(Termination(reason=reason, message=message, progress=self._last, owner_attempt=self._owner).document())
        done = {"exitCode": int(code), "reason": "Error" if code else "Completed", "message": text, "startedAt": now, "finishedAt": now}
        status = {
            "containerStatuses": [{"name": "driver", "ready": False, "started": False, "state": {"terminated": done, "running": None}}],
            "conditions": [{"type": t, "status": "False", "reason": "ContainersNotReady"} for t in ("Ready", "ContainersReady")],
        }
        path = f"/api/v1/namespaces/{self._namespace}/pods/{self._name}/status"
        await self._client.send("PATCH", path, {"status": status}, STRATEGIC)


async def simulate(kubeconfig: Path, log: Callable[..., None]) -> None:
    """Run until cancelled."""
    client = Client(kubeconfig)
    simulator = Simulator(client, log)
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, simulator.loaded.set)
    ours = f"{names.LABEL_MANAGED_BY}={names.MANAGED_BY}"
    watches: list[Awaitable[None]] = [
        client.watch("/apis/ray.io/v1/rayclusters", ours, simulator.saw_cluster),
        client.watch("/api/v1/pods", f"{ours},{names.LABEL_ROLE}=head", simulator.saw_pod),
    ]
    try:
        await asyncio.gather(*watches)
    finally:
        await client.close()


def main() -> None:
    """Run until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--log", type=Path, required=True)
    found = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with found.log.open("a", buffering=1) as file:
        asyncio.run(simulate(found.kubeconfig, lambda **line: print(json.dumps({"at": time.time(), **line}), file=file)))


if __name__ == "__main__":
    main()
