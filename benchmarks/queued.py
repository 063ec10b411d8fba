"""What waiting jobs cost while Kueue holds them: this checkout beside the one before attempts shared a RayCluster.

python benchmarks/queued.py [--against COMMIT] [--jobs N] [--admitted N] [--windows N] [--seconds S]

Each side is a control plane of its own (etcd, API server, controllers, KubeRay, Kueue, kwok) with an operator of that side's sources.
A few jobs are admitted, train and report nothing; then the rest is submitted, as inspected already, and waits for GPUs. Measured is what
the operator spends, its processor time and its requests without leases and watches, both sides in the same windows of time:
with nobody waiting, with all of them, and while the quota moves to and fro each few seconds, so that Kueue tells each of them a new amount.
"""

import argparse
import os
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
REST_S, MOVES_S, LOOK_S, PATIENCE_S = 30.0, 10.0, 10.0, 3600.0
WIDE = {"ResourceFlavor": "resourceflavors", "ClusterQueue": "clusterqueues"}
MANY = {"cpu": "100000", "memory": "1000Ti"}


class Waiting:
    """One tree's control plane, operator and jobs."""

    def __init__(self, tree: Path, folder: Path, admitted: int) -> None:
        sys.path.insert(0, str(tree))
        from tests.control_plane.harness import api, manifests, operator, plane, world

        api.PLURALS.update({kind: f"/apis/{GROUP}/v1beta2/{{}}{plural}" for kind, plural in WIDE.items()})
        api.PLURALS["LocalQueue"] = f"/apis/{GROUP}/v1beta2/{{}}localqueues"
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
        """`submit N`, `measure SECONDS`, or `move SECONDS`."""
        verb, _, amount = line.partition(" ")
        if verb == "submit":
            return self._submit(int(amount))
        return self._measure(float(amount), moving=verb == "move")

    def _queues(self) -> None:
        """A ClusterQueue for each admitted job, with GPUs for it alone; CPUs and memory are for everybody, so that all are inspected.

        Kueue looks at one Workload of a queue at a time, and at all that wait there again when one has ended.
        """
        version, api = f"{GROUP}/v1beta2", self.plane.api
        api.ensure({"apiVersion": version, "kind": "ResourceFlavor", "metadata": {"name": "any"}})
        for team in range(self.admitted):
            name = f"team-{team}"
            whole = {"namespaceSelector": {}, "resourceGroups": _quota(0)}
            api.ensure({"apiVersion": version, "kind": "ClusterQueue", "metadata": {"name": name}, "spec": whole})
            local = {"apiVersion": version, "kind": "LocalQueue", "metadata": {"name": name}, "spec": {"clusterQueue": name}}
            api.ensure(local, NAMESPACE)

    def _submit(self, count: int) -> Found:
        """Add jobs; all but the first few begin as inspected, for two hundred inspections at once are not what is measured."""
        names = [f"job-{number:03d}" for number in range(self.submitted, self.submitted + count)]
        self.operator.freeze()
        for number, name in enumerate(names, self.submitted):
            manifest = self.manifests.preset("qwen3-4b-fp8", NAMESPACE, HOLDS)
            manifest["metadata"] |= {"name": name, "labels": {f"{GROUP}/queue-name": f"team-{number % self.admitted}"}}
            made = self.world.apply(manifest)
            if self.submitted:
                known = {"inspection": self.world.status("job-000")["inspection"]}
                self.plane.api.send("PUT", self.plane.api.path(made["kind"], NAMESPACE, name) + "/status", {**made, "status": known})
        self.operator.thaw()
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

    def _measure(self, seconds: float, moving: bool) -> Found:
        assert self.operator.process is not None
        before, cpu, began, moves = calls(self.operator.metrics()), self.operator.process.cpu_s(), time.monotonic(), 0
        while (left := began + seconds - time.monotonic()) > 0:
            if moving:
                moves += 1
                for team in range(self.admitted):
                    self.plane.api.patch("ClusterQueue", None, f"team-{team}", {"spec": {"resourceGroups": _quota(moves % 2)}})
            time.sleep(min(MOVES_S if moving else left, left))
        minutes = (time.monotonic() - began) / 60
        after = calls(self.operator.metrics())
        made = {name: (after[name] - before.get(name, 0.0)) / minutes for name in sorted(after) if after[name] != before.get(name, 0.0)}
        return {"cpu_ms": (self.operator.process.cpu_s() - cpu) * 1000 / minutes, "calls": made, "load": os.getloadavg()[0]}


def _quota(more: int) -> list[Found]:
    amounts = {**MANY, "nvidia.com/gpu": str(GPUS + more)}
    resources = [{"name": kind, "nominalQuota": amount} for kind, amount in amounts.items()]
    return [{"coveredResources": list(amounts), "flavors": [{"name": "any", "resources": resources}]}]


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
    options.add_argument("--windows", type=int, default=5, help="with jobs that wait; two each before them and while the quota moves")
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
    fewer = min(2, chosen.windows)
    stages = {
        "nobody waits": (chosen.admitted, "measure", fewer),
        f"{waiting} wait": (waiting, "measure", chosen.windows),
        "the quota moves": (0, "move", fewer),
    }
    with two_sides(Path(__file__), chosen.against, "--admitted", str(chosen.admitted)) as both:
        for what, (count, verb, windows) in stages.items():
            settled = [ask(side, f"submit {count}") for side in both]
            print(what, *(f"{s()['settled_s']:.0f} s" for s in settled), file=sys.stderr, flush=True)
            found[what] = [[], []]
            for _ in range(windows):
                for side, measured in zip(found[what], [ask(s, f"{verb} {chosen.seconds:g}") for s in both], strict=True):
                    side.append(measured())
    print(table([chosen.against, "this checkout"], found, waiting))


if __name__ == "__main__":
    main()
