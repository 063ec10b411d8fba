"""What waiting jobs cost while Kueue holds them: this checkout beside the one before attempts shared a RayCluster.

python benchmarks/queued.py [--against COMMIT] [--jobs N] [--admitted N] [--batch N] [--windows N] [--seconds S]

Each side is a control plane of its own (etcd, API server, controllers, KubeRay, Kueue, kwok) with an operator of that side's sources.
A few jobs are admitted, train and report nothing. Then all others are brought to where they wait for GPUs, a batch at a time: each is
inspected by a Job of its own and a batch shares a conversion, which the same queue lets in; Kueue, KubeRay and the Job controller go on as
ever. Measured is what the operator spends, its processor time and its requests without leases and watches: for each job of a batch until it
waits, and in the same windows of time on both sides, with nobody waiting and with all of them.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from sides import Found, Side, answer, ask, calls, two_sides

BEFORE = "b49aa95"
"""The last commit with a RayCluster for each attempt."""
NAMESPACE, GROUP = "queued", "kueue.x-k8s.io"
GPUS = 8
"""Of one job: a node."""
HOLDS = {"step_s": 0.1, "report_s": 3600, "hold_at": 2}
STALL_S = 36_000
"""Those that train report nothing, however long the others take."""
INSPECTED = "sim.lprl.dev/inspect-message"
REST_S, LOOK_S, PATIENCE_S = 60.0, 10.0, 1800.0
KINDS = {"ResourceFlavor": "resourceflavors", "ClusterQueue": "clusterqueues", "LocalQueue": "localqueues", "Workload": "workloads"}
MANY = {"cpu": "100000", "memory": "1000Ti"}


class Waiting:
    """One tree's control plane, operator and jobs."""

    def __init__(self, tree: Path, folder: Path, admitted: int) -> None:
        sys.path.insert(0, str(tree))
        from tests.control_plane.harness import api, manifests, operator, plane, world

        api.PLURALS.update({kind: f"/apis/{GROUP}/v1beta2/{{}}{plural}" for kind, plural in KINDS.items()})
        self.manifests, self.admitted, self.submitted = manifests, admitted, 0
        self.plane = plane.ControlPlane(folder / "plane")
        try:
            self.plane.up("--kuberay", "--kueue")
            self.plane.start_kwok()
            self.plane.start_drivers(folder / "drivers.jsonl")
            self.operator = operator.Operator(self.plane, kubeconfig=self.plane.service_account("lprl-operator"))
            self.operator.wait_healthy(600)
            plane.make_namespace(self.plane.api, NAMESPACE)
            self.plane.add_gpu_nodes(NAMESPACE, admitted)
            self.plane.add_nodes(NAMESPACE, "cpu", 4, resources={"cpu": "4000", "memory": "64Ti", "pods": "1000"})
            self.world = world.World(self.plane, NAMESPACE, folder / "drivers.jsonl")
            self._queues()
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        """Stop everything."""
        if hasattr(self, "operator"):
            self.operator.stop()
        self.plane.down()

    def act(self, line: str) -> Found:
        """`submit N`: add jobs that soon run or wait; `measure SECONDS`: what the operator spends meanwhile."""
        verb, _, amount = line.partition(" ")
        if verb == "submit":
            return self._spent(lambda: self._submit(int(amount)))
        return self._spent(lambda: time.sleep(float(amount)))

    def _queues(self) -> None:
        """GPUs for the admitted; CPUs and memory for everybody, so that all are inspected."""
        version, amounts = f"{GROUP}/v1beta2", {**MANY, "nvidia.com/gpu": str(GPUS * self.admitted)}
        resources = [{"name": kind, "nominalQuota": amount} for kind, amount in amounts.items()]
        groups = [{"coveredResources": list(amounts), "flavors": [{"name": "any", "resources": resources}]}]
        wide = {"namespaceSelector": {}, "resourceGroups": groups}
        local = {"apiVersion": version, "kind": "LocalQueue", "metadata": {"name": "team"}, "spec": {"clusterQueue": "training"}}
        self.plane.api.ensure({"apiVersion": version, "kind": "ResourceFlavor", "metadata": {"name": "any"}})
        self.plane.api.ensure({"apiVersion": version, "kind": "ClusterQueue", "metadata": {"name": "training"}, "spec": wide})
        self.plane.api.ensure(local, NAMESPACE)

    def _submit(self, count: int) -> None:
        for number in range(self.submitted, self.submitted + count):
            manifest = self.manifests.preset("qwen3-4b-fp8", NAMESPACE, HOLDS)
            notes = manifest["spec"]["podTemplate"]["conversion"]["annotations"]
            notes[INSPECTED] = json.dumps(json.loads(notes[INSPECTED]) | {"shards": 1})  # a conversion is one pod, not 62
            manifest["spec"].setdefault("failurePolicy", {})["stallSeconds"] = STALL_S
            manifest["metadata"] |= {"name": f"job-{number:03d}", "labels": {f"{GROUP}/queue-name": "team"}}
            self.world.apply(manifest)
        self.submitted += count
        self.world.wait("all run or wait for GPUs", self._settled, PATIENCE_S, LOOK_S)

    def _settled(self) -> bool:
        """Whether as many run as have GPUs, and Kueue has said of all the others what they lack."""
        clusters = self.plane.api.list("RayCluster", NAMESPACE)
        ready = sum((c.get("status") or {}).get("state") == "ready" for c in clusters)
        told = sum(self._waits(w) for w in self.plane.api.list("Workload", NAMESPACE))
        return bool(len(clusters) == ready + told == self.submitted and ready == min(self.admitted, self.submitted))

    def _waits(self, workload: Found) -> bool:
        conditions = (workload.get("status") or {}).get("conditions", ())
        return any(c["type"] == "QuotaReserved" and c["status"] == "False" and "nvidia.com/gpu" in c["message"] for c in conditions)

    def _spent(self, act: Callable[[], None]) -> Found:
        """Do something; returns what the operator spent meanwhile."""
        assert self.operator.process is not None
        before, cpu, began = calls(self.operator.metrics()), self.operator.process.cpu_s(), time.monotonic()
        act()
        seconds, spent = time.monotonic() - began, self.operator.process.cpu_s() - cpu
        made = {name: value - before.get(name, 0.0) for name, value in sorted(calls(self.operator.metrics()).items())}
        return {"seconds": seconds, "cpu_ms": spent * 1000, "calls": {k: v for k, v in made.items() if v}, "load": os.getloadavg()[0]}


VALUES: dict[str, Callable[[Found], float]] = {
    "processor, ms": lambda w: float(w["cpu_ms"]),
    "requests": lambda w: sum(w["calls"].values()),
}


def a_minute(window: Found, value: Callable[[Found], float]) -> float:
    """Return what a window has of something, a minute."""
    return value(window) * 60 / float(window["seconds"])


def table(names: list[str], found: dict[str, list[list[Found]]], waiting: int) -> str:
    """Return medians a minute and, for those who wait, a job, as Markdown: what is spent with nobody waiting is taken off."""
    lines = [f"| of the operator, a minute | {' | '.join(names)} |", "|---|---|---|"]
    for what, windows in found.items():
        for unit, value in VALUES.items():
            cells = []
            for side, idle in zip(windows, found["nobody waits"], strict=True):
                values = sorted(a_minute(w, value) for w in side)
                middle = statistics.median(values)
                each = (middle - statistics.median(a_minute(w, value) for w in idle)) / waiting
                own = "" if what == "nobody waits" else f"; {each:.3g} a waiting job"
                cells.append(f"{middle:.4g} ({values[0]:.4g} to {values[-1]:.4g}){own}")
            lines.append(f"| {what}: {unit} | {' | '.join(cells)} |")
    for what, windows in found.items():
        for name, side in zip(names, windows, strict=True):
            kinds = sorted({k for w in side for k in w["calls"]})
            medians = {k: statistics.median(w["calls"].get(k, 0.0) * 60 / w["seconds"] for w in side) for k in kinds}
            lines.append(f"\n{what}, {name}: {', '.join(f'{v:.3g} {k}' for k, v in medians.items()) or 'no requests'}")
    loads = [w["load"] for windows in found.values() for side in windows for w in side]
    return "\n".join([*lines, f"\nLoad of the machine: {min(loads):.1f} to {max(loads):.1f}, {os.cpu_count()} processors"])


def brought(batches: list[tuple[int, Found]]) -> str:
    """Return what a job cost until it waited, in the first and the last batches."""
    told = []
    for part, of in (("first", batches[: len(batches) // 4 or 1]), ("last", batches[-(len(batches) // 4 or 1) :])):
        jobs = sum(n for n, _ in of)
        each = [f"{sum(value(b) for _, b in of) / jobs:.4g} {unit}" for unit, value in VALUES.items()]
        told.append(f"{part} {jobs}: {', '.join(each)}")
    return "; ".join(told)


def say(*words: object) -> None:
    """Tell what is going on."""
    print(time.strftime("%H:%M:%S"), *words, file=sys.stderr, flush=True)


def both_do(sides: tuple[Side, Side], line: str) -> list[Found]:
    """Have both sides do something at once."""
    return [wait_for() for wait_for in [ask(side, line) for side in sides]]


def bring(names: list[str], sides: tuple[Side, Side], jobs: int, batch: int) -> list[str]:
    """Have both sides bring jobs to where they wait; returns what each cost."""
    found: list[list[tuple[int, Found]]] = [[], []]
    for first in range(0, jobs, batch):
        count = min(batch, jobs - first)
        for batches, done in zip(found, both_do(sides, f"submit {count}"), strict=True):
            batches.append((count, done))
        told = (f"{n}: {b[-1][1]['seconds']:.0f} s, {brought(b[-1:]).rpartition(': ')[2]}" for n, b in zip(names, found, strict=True))
        say(f"{first + count} of {jobs} wait;", "; ".join(told))
    return [brought(batches) for batches in found]


def measured(names: list[str], sides: tuple[Side, Side], what: str, windows: int, seconds: float) -> list[list[Found]]:
    """Return what both spend in the same windows of time, after a rest."""
    time.sleep(REST_S)
    found: list[list[Found]] = [[], []]
    for number in range(windows):
        for side, done in zip(found, both_do(sides, f"measure {seconds:g}"), strict=True):
            side.append(done)
        spent = (f"{n}: {s[-1]['cpu_ms']:.0f} ms, {sum(s[-1]['calls'].values()):.0f} requests" for n, s in zip(names, found, strict=True))
        say(what, f"window {number + 1} of {windows}:", "; ".join(spent), f"load {os.getloadavg()[0]:.1f}")
    return found


def options() -> argparse.Namespace:
    """Return what the command line says."""
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--against", default=BEFORE, metavar="COMMIT")
    found.add_argument("--jobs", type=int, default=200, help="that wait")
    found.add_argument("--admitted", type=int, default=4, help="that train meanwhile")
    found.add_argument("--batch", type=int, default=20, help="jobs submitted at a time")
    found.add_argument("--windows", type=int, default=5, help="each way")
    found.add_argument("--seconds", type=float, default=60.0, help="of a window")
    found.add_argument("--side", type=Path, help=argparse.SUPPRESS)
    return found.parse_args()


def be_a_side(tree: Path, admitted: int) -> None:
    """Answer for one tree until nobody asks any more."""
    with tempfile.TemporaryDirectory(prefix="lprl-queued-") as folder:
        side = Waiting(tree, Path(folder), admitted)
        try:
            answer(side.act)
        finally:
            side.end()


def main() -> None:
    """Measure both sides and print the table."""
    chosen = options()
    if chosen.side is not None:
        be_a_side(chosen.side, chosen.admitted)
        return
    names, found = [chosen.against, "this checkout"], dict[str, list[list[Found]]]()
    with two_sides(Path(__file__), chosen.against, "--admitted", str(chosen.admitted)) as both:
        say("both sides are up")
        both_do(both, f"submit {chosen.admitted}")
        say(f"{chosen.admitted} train")
        found["nobody waits"] = measured(names, both, "nobody waits", chosen.windows, chosen.seconds)
        costs = bring(names, both, chosen.jobs, chosen.batch)
        waiting = f"{chosen.jobs} wait"
        found[waiting] = measured(names, both, waiting, chosen.windows, chosen.seconds)
    print(table(names, found, chosen.jobs))
    for name, cost in zip(names, costs, strict=True):
        print(f"\nA job until it waits, {name}: {cost}")


if __name__ == "__main__":
    main()
