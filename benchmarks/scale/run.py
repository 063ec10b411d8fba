"""Bar of scale: N jobs at once that share one source, against N bare RayClusters created directly, on one simulated control plane.

    python benchmarks/scale/run.py --jobs 100,300,1000
    python benchmarks/scale/run.py --jobs 1000 --no-bare --keep-jobs     # what 1,000 running jobs cost, within a quarter of an hour

Needs a folder with up.sh (LPRL_DEVCLUSTER, else a sibling shared/devcluster). For each N bare clusters are made first, then, on a
fresh control plane, the jobs, which then run on, silent and reporting every 15 s (and with --twice bare clusters again).
Writes results.json and results.md into --out. Exit code 1 when a bar is missed.
"""

import argparse
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import lanes
from measure import Meter, api_calls
from report import missed, write
from rows import Rows
from tests.control_plane.harness.operator import Operator
from tests.control_plane.harness.plane import ControlPlane, make_namespace
from tests.control_plane.harness.world import World

ROOT = Path(__file__).resolve().parents[2]
NODES = 40
NODE = {"cpu": "1000", "memory": "16000Gi", "pods": "1000"}
POOL = "jobs"
SETTLE_S = 30.0
Result = dict[str, Any]


def say(text: str) -> None:
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stdout.flush()


class Stage:
    """A fresh control plane with nodes and simulated drivers, warmed up by one job; ends with the block."""

    def __init__(self, label: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"lprl-scale-{label}-"))
        self.plane = ControlPlane(self.folder)

    def __enter__(self) -> "Stage":
        try:
            return self._set_up()
        except BaseException:
            self.__exit__()
            raise

    def _set_up(self) -> "Stage":
        kwok, log = self.plane.start_kwok(), self.folder / "drivers.jsonl"
        self.drivers = self.plane.start_drivers(log)
        make_namespace(self.plane.api, POOL)
        self.plane.add_nodes(POOL, "cpu", NODES, resources=NODE)
        self.world = World(self.plane, POOL, log)
        self.meter = Meter(self.plane, {"kwok": kwok.pid, "drivers": self.drivers.pid})
        self.sample = lanes.template(self.plane, self.world)
        return self

    def __exit__(self, *_: object) -> None:
        self.plane.down()
        shutil.rmtree(self.folder, ignore_errors=True)


def measure(count: int, rest_s: float, bare: tuple[str, ...], keep_jobs: bool) -> Result:
    """One N: bare clusters before and after the jobs, as often as they have names, each on a control plane of its own."""
    result: Result = {"jobs": count, "bare": [_bare(count, label) for label in bare[:1]]}
    with Stage(f"jobs-{count}") as stage:
        # As in a cluster: with the token of a service account, not with a certificate, which an API server checks at each request.
        operator = Operator(stage.plane, "operator", kubeconfig=stage.plane.service_account("lprl-operator"))
        operator.wait_healthy()
        assert operator.process is not None
        stage.meter.parts["operator"] = operator.process.pid
        result["lane"] = _jobs(stage, operator, count)
        result["silent"] = _rest(operator, stage.meter, rest_s)
        stage.drivers.signal(signal.SIGUSR1)
        time.sleep(2 * lanes.REPORT_S)  # those that were due all report at once; from then on each at its own time
        result["reporting"] = _rest(operator, stage.meter, rest_s)
        unready = lanes.unready_nodes(stage.plane)
        assert not unready, f"nodes became NotReady, and all their pods with them: {unready}"
        if not keep_jobs:
            rows = Rows(stage.plane.kubeconfig, lanes.JOBS.format(POOL), ("phase",))
            rows.wait("jobs listed", lambda found: sum(found.values()) == count, 60)
            result["delete_s"] = lanes.delete_jobs(stage.plane, stage.world, rows)
            rows.close()
        result["errors"] = {k: v for k, v in operator.metrics().items() if k.startswith("lprl_reconcile_errors_total") and v}
        operator.stop()
    result["bare"] += [_bare(count, label) for label in bare[1:]]
    return result


def _bare(count: int, label: str) -> Result:
    with Stage(f"bare-{count}") as stage:
        cpu: dict[str, float] = {}
        with stage.meter.spent(cpu):
            found = lanes.bare(stage.plane, stage.sample, count, label)
        say(f"{count} bare clusters ({label}): ready after {found['ready_s']:.1f} s")
        return {**found, "cpu": cpu}


def _jobs(stage: Stage, operator: Operator, count: int) -> Result:
    rows = Rows(stage.plane.kubeconfig, lanes.JOBS.format(POOL), ("phase", "nodes"))
    before, during, begun = dict[str, float](), dict[str, float](), time.monotonic()
    with stage.meter.spent(before):
        applied = lanes.submit(stage.world, count)
        rows.wait("all converting", lambda found: _phases(found)["Converting"] == count, lanes.PATIENCE_S)
    waiting = time.monotonic() - begun
    say(f"{count} jobs: applied in {applied:.1f} s, all wait for the conversion after {waiting:.1f} s")
    with stage.meter.spent(during):
        found = lanes.release(stage.world, rows, count)
    total = time.monotonic() - begun
    rows.close()
    assert operator.process is not None
    calls = api_calls(operator)
    say(f"{count} jobs: Provisioning to Running {found['provisioning_to_running_s']:.1f} s, in all {total:.1f} s")
    return {
        **found,
        "applied_s": applied,
        "to_converting_s": waiting,
        "total_s": total,
        "cpu_to_converting": before,
        "cpu_to_running": during,
        "api_calls": calls,
        "api_calls_per_job": sum(calls.values()) / count,
        "memory_mib": operator.process.memory_mib(),
        "memory_peak_mib": operator.process.memory_mib("VmHWM"),
        "clusters": len(stage.plane.api.list("RayCluster", POOL)),
    }


def _phases(found: Counter[str]) -> Counter[str]:
    """Counts by the first word of a row: its phase."""
    phases = Counter[str]()
    for value, number in found.items():
        phases[value.split(" ")[0]] += number
    return phases


def _rest(operator: Operator, meter: Meter, seconds: float) -> Result:
    """CPU and calls while everything runs on."""
    time.sleep(SETTLE_S)
    cpu: dict[str, float] = {}
    before = api_calls(operator)
    with meter.spent(cpu):
        time.sleep(seconds)
    after = api_calls(operator)
    assert operator.process is not None
    calls = {k: v - before.get(k, 0.0) for k, v in after.items() if v != before.get(k, 0.0)}
    core = cpu["operator"] / cpu["wall"]
    say(f"operator over {seconds:g} s: {core:.1%} of a core, {sum(calls.values()):.0f} API calls")
    return {"cpu": cpu, "core": core, "api_calls": calls, "memory_mib": operator.process.memory_mib()}


def main() -> int:
    """Run every N; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", default="100,300,1000", help="numbers of jobs, comma separated")
    parser.add_argument("--rest-seconds", type=float, default=60.0, help="how long running jobs are observed, each way")
    parser.add_argument("--keep-jobs", action="store_true", help="do not measure their deletion, which garbage collection makes long")
    parser.add_argument("--twice", action="store_true", help="bare clusters again after the jobs, to see how even the machine is")
    parser.add_argument("--no-bare", action="store_true", help="no bare clusters: how jobs start is told, but compared with nothing")
    parser.add_argument("--out", type=Path, default=ROOT / "bench-out" / "scale")
    found = parser.parse_args()
    bare = () if found.no_bare else ("first", "second") if found.twice else ("first",)
    results = []
    for count in map(int, found.jobs.split(",")):
        results.append(measure(count, found.rest_seconds, bare, found.keep_jobs))
        write(results, found.out)
    sys.stdout.write((found.out / "results.md").read_text())
    problems = missed(results)
    for problem in problems:
        say(f"MISSED {problem}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
