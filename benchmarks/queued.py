"""What waiting jobs cost while Kueue holds them: this checkout beside the one before attempts shared a RayCluster.

python benchmarks/queued.py [--against COMMIT] [--jobs N] [--admitted N] [--windows N] [--seconds S]

Each side is a control plane of its own (etcd, API server, controllers, KubeRay, Kueue, kwok) with an operator of that side's sources.
A few jobs are admitted, train and report nothing; one more is inspected and waits for GPUs. Then Kueue and KubeRay, which do nothing while
jobs wait, are stopped, and that job, its RayCluster and its Workload, as they left them, are copied to the number asked for: it is waiting
that is measured, and two hundred inspections at once take a small machine half an hour. Measured is what the operator spends, its processor
time and its requests without leases and watches, both sides in the same windows of time: with nobody waiting, and with all of them.
"""

import argparse
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

from sides import Found, answer, ask, calls, two_sides

BEFORE = "b49aa95"
"""The last commit with a RayCluster for each attempt."""
NAMESPACE, GROUP = "queued", "kueue.x-k8s.io"
GPUS = 8
"""Of one job: a node."""
HOLDS = {"step_s": 0.1, "report_s": 3600, "hold_at": 2}
REST_S, SETTLE_S, LOOK_S, PATIENCE_S = 30.0, 60.0, 5.0, 3600.0
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
        """`submit N`, `copy N`, or `measure SECONDS`."""
        verb, _, amount = line.partition(" ")
        if verb == "measure":
            return self._measure(float(amount))
        return self._submit(int(amount)) if verb == "submit" else self._copy(int(amount))

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

    def _submit(self, count: int) -> Found:
        for number in range(self.submitted, self.submitted + count):
            manifest = self.manifests.preset("qwen3-4b-fp8", NAMESPACE, HOLDS)
            manifest["metadata"] |= {"name": f"job-{number:03d}", "labels": {f"{GROUP}/queue-name": "team"}}
            self.world.apply(manifest)
        self.submitted += count
        began = time.monotonic()
        self.world.wait("all run or wait for GPUs", self._settled, PATIENCE_S, LOOK_S)
        time.sleep(REST_S)
        return {"settled_s": time.monotonic() - began}

    def _settled(self) -> bool:
        clusters = self.plane.api.list("RayCluster", NAMESPACE)
        ready = sum((c.get("status") or {}).get("state") == "ready" for c in clusters)
        held = sum(bool(c["spec"].get("suspend")) for c in clusters)
        return (ready, held) == (min(self.admitted, self.submitted), self.submitted - ready)

    def _copy(self, count: int) -> Found:
        """Copy the last job with all that waits of it; nobody but the operator and the API server's own controllers acts from now on."""
        api = self.plane.api
        for name in ("kueue", "ray-operator"):
            os.kill(self.plane.pid(name), signal.SIGSTOP)
        for kind in ("validating", "mutating"):
            path = f"/apis/admissionregistration.k8s.io/v1/{kind}webhookconfigurations"
            for found in api.send("GET", path)["items"]:
                api.send("DELETE", f"{path}/{found['metadata']['name']}")
        last = f"job-{self.submitted - 1:03d}"
        job = api.get("LowPrecisionRLJob", NAMESPACE, last)
        cluster = api.get("RayCluster", NAMESPACE, f"{last}-a1")
        workload = next(
            w for w in api.list("Workload", NAMESPACE) if w["metadata"]["ownerReferences"][0]["uid"] == cluster["metadata"]["uid"]
        )
        self.operator.freeze()
        for number in range(self.submitted, self.submitted + count):
            owner = ""
            for document in (job, cluster, workload):
                owner = self._copied(document, last, f"job-{number:03d}", owner)
        self.operator.thaw()
        self.submitted += count
        time.sleep(SETTLE_S)
        return {"settled_s": SETTLE_S}

    def _copied(self, document: Found, old: str, new: str, owner: str) -> str:
        """Make an object like `document` under another job's name, its status too; returns its uid. `owner`: that of its controller."""
        found = json.loads(json.dumps(document).replace(old, new))
        for key in ("uid", "resourceVersion", "creationTimestamp", "generation", "managedFields"):
            found["metadata"].pop(key, None)
        for reference in found["metadata"].get("ownerReferences", ()):
            reference["uid"] = owner
        api = self.plane.api
        made = api.create(found, NAMESPACE)
        api.send("PUT", api.path(found["kind"], NAMESPACE, made["metadata"]["name"]) + "/status", {**made, "status": found["status"]})
        return str(made["metadata"]["uid"])

    def _measure(self, seconds: float) -> Found:
        assert self.operator.process is not None
        before, cpu, began = calls(self.operator.metrics()), self.operator.process.cpu_s(), time.monotonic()
        time.sleep(seconds)
        minutes = (time.monotonic() - began) / 60
        after = calls(self.operator.metrics())
        made = {name: (after[name] - before.get(name, 0.0)) / minutes for name in sorted(after) if after[name] != before.get(name, 0.0)}
        return {"cpu_ms": (self.operator.process.cpu_s() - cpu) * 1000 / minutes, "calls": made, "load": os.getloadavg()[0]}


def table(names: list[str], found: dict[str, list[list[Found]]], waiting: int) -> str:
    """Return medians a minute and, for those who wait, a job, as Markdown: what is spent with nobody waiting is taken off."""
    lines = [f"| of the operator, a minute | {' | '.join(names)} |", "|---|---|---|"]
    for what, windows in found.items():
        for unit, value in (("processor, ms", lambda w: w["cpu_ms"]), ("requests", lambda w: sum(w["calls"].values()))):
            cells = []
            for side, idle in zip(windows, found["nobody waits"], strict=True):
                values = sorted(value(w) for w in side)
                middle = statistics.median(values)
                each = (middle - statistics.median(value(w) for w in idle)) / waiting
                own = "" if what == "nobody waits" else f"; {each:.3g} a waiting job"
                cells.append(f"{middle:.4g} ({values[0]:.4g} to {values[-1]:.4g}){own}")
            lines.append(f"| {what}: {unit} | {' | '.join(cells)} |")
    for what, windows in found.items():
        for name, side in zip(names, windows, strict=True):
            kinds = sorted({k for w in side for k in w["calls"]})
            each = ", ".join(f"{statistics.median(w['calls'].get(k, 0) for w in side):.3g} {k}" for k in kinds)
            lines.append(f"\n{what}, {name}: {each or 'no requests'}")
    loads = [w["load"] for windows in found.values() for side in windows for w in side]
    return "\n".join([*lines, f"\nLoad of the machine: {min(loads):.1f} to {max(loads):.1f}, {os.cpu_count()} processors"])


def main() -> None:
    """Measure both sides at once and print the table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--against", default=BEFORE, metavar="COMMIT")
    options.add_argument("--jobs", type=int, default=200)
    options.add_argument("--admitted", type=int, default=4)
    options.add_argument("--windows", type=int, default=5, help="each way")
    options.add_argument("--seconds", type=float, default=60.0, help="of a window")
    options.add_argument("--side", type=Path, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.side is not None:
        with tempfile.TemporaryDirectory(prefix="lprl-queued-") as folder:
            side = Waiting(chosen.side, Path(folder), chosen.admitted)
            try:
                answer(side.act)
            finally:
                side.end()
        return
    waiting, found = chosen.jobs - chosen.admitted, dict[str, list[list[Found]]]()
    stages = {"nobody waits": (("submit", chosen.admitted),), f"{waiting} wait": (("submit", 1), ("copy", waiting - 1))}
    with two_sides(Path(__file__), chosen.against, "--admitted", str(chosen.admitted)) as both:
        for what, steps in stages.items():
            for verb, count in steps:
                done = [ask(side, f"{verb} {count}") for side in both]
                print(f"{what}: {verb}", *(f"{found_by()['settled_s']:.0f} s" for found_by in done), file=sys.stderr, flush=True)
            found[what] = [[], []]
            for _ in range(chosen.windows):
                for side, measured in zip(found[what], [ask(s, f"measure {chosen.seconds:g}") for s in both], strict=True):
                    side.append(measured())
    print(table([chosen.against, "this checkout"], found, waiting))


if __name__ == "__main__":
    main()
