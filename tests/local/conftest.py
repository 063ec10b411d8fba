"""The driver as a process, and a small real Ray to run it on."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.local.forked import Forked

from lprl_api.names import ExitCode
from lprl_fixtures.runs import ENV_PACE, merged, run_config, write_inputs
from lprl_operator.places.local import ray_node
from lprl_operator.places.local.ports import free_port

DEADLINE_S = 600.0
"""For a run of seconds: on a busy machine it takes minutes."""
PACED = {"data": {"reward": {"function": "lprl_fixtures.runs:even_share_paced", "timeout_seconds": 3600}}}
SPLIT = {"ranks": {"placement": "split", "nodes": 2, "rollout_nodes": 1, "engines": 2}, "weight_sync": {"transport": "auto"}}
RESPONSES = 16
"""Of a step, and of an evaluation."""
RAY_ENV = {
    "RAY_AUTH_MODE": "disabled",  # else a head asks for the token that a developer's ~/.ray may hold, and drivers give none
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_memory_monitor_refresh_ms": "0",
    "RAY_worker_niceness": "0",  # 15 by default: starved by the lanes beside it
    "RAY_prestart_worker_first_driver": "0",
    "RAY_raylet_start_wait_time_s": "120",
    "RAY_agent_register_timeout_ms": "600000",
    "LPRL_HOST_ADDRESS": "127.0.0.1",
    "GLOO_SOCKET_IFNAME": "lo",
}


class Ray:
    """A head without CPUs and workers with slots, as processes of this test."""

    def __init__(self, temp: Path, root: Path) -> None:
        self.temp, self.port, self.nodes = temp, free_port(), 0
        self.env = {**os.environ, **RAY_ENV, "LPRL_VOLUMES_ROOT": str(root), "OMP_NUM_THREADS": "1"}
        self.processes: list[subprocess.Popen[bytes]] = []
        self.start("--head", f"--port={self.port}", "--num-cpus=0", "--no-monitor")

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self, *flags: str) -> subprocess.Popen[bytes]:
        folder = self.temp / f"n{self.nodes}"
        folder.mkdir()
        host = f"127.0.0.{1 + self.nodes}"
        self.nodes += 1
        own = (f"--node-ip-address={host}", f"--temp-dir={folder}", "--object-store-memory=100000000")
        line = ray_node.line("--block", *flags, *own, "--include-log-monitor=false", "--disable-usage-stats")
        out = (folder / "out").open("wb")
        self.processes.append(subprocess.Popen(line, env=self.env, stdout=out, stderr=out, start_new_session=True))
        return self.processes[-1]

    def worker(self, **slots: int) -> subprocess.Popen[bytes]:
        resources = json.dumps({f"lprl_{name}": count for name, count in slots.items()})
        return self.start(f"--address={self.address}", "--num-cpus=1", f"--resources={resources}")

    def said(self) -> str:
        """What nodes printed that ended although nobody stopped them."""
        ended = [n for n, process in enumerate(self.processes) if process.poll() is not None]
        return "".join(f"\nnode {n} ended: {(self.temp / f'n{n}' / 'out').read_text()[-2000:]}" for n in ended)

    def stop(self, keep: int = 0) -> None:
        """End all nodes but the first `keep`; the head is the first."""
        ended, self.processes = self.processes[keep:], self.processes[:keep]
        for process in reversed(ended):
            process.send_signal(signal.SIGTERM)
        for process in ended:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def rows_of(file: Path, *dropped: str) -> list[dict[str, Any]]:
    """The rows of a file without some columns, and without times."""
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in dropped and not k.endswith("_seconds")} for row in rows]


def series_of(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run without what may differ: attempt, times, rates, and the count of pushes."""
    return rows_of(folder / "metrics.jsonl", "attempt", "time", "weight_version", "tokens_per_second")


def outcome_of(folder: Path) -> dict[str, Any]:
    """Everything of a run folder that must not depend on how the run got there."""
    step = sorted(folder.glob("step-??????"))[-1]
    records = json.loads((step / "manifest.json").read_text())["files"]
    state = json.loads((step / "state.json").read_text())
    # Pushes are counted, also those a recovery adds; nothing is computed from the number.
    del state["weight_version"]
    exported = sorted(p for p in (folder / "export").rglob("*") if p.suffix in (".safetensors", ".json") and p.name != "manifest.json")
    return {
        "series": series_of(folder),
        "evaluations": rows_of(folder / "evaluations.jsonl", "weight_version"),
        "files": {r["path"]: r["sha256"] for r in records if r["path"] != "state.json"},
        "step": step.name,
        "state": state,
        "exports": {str(p.relative_to(folder)): _exported(p) for p in exported},
    }


def _exported(path: Path) -> str:
    """Digest of an exported file; a report's fingerprint and key cover modification times, which are left out."""
    if path.name != "conversion_report.json":
        return hashlib.sha256(path.read_bytes()).hexdigest()
    report = json.loads(path.read_text())
    return json.dumps({key: value for key, value in report.items() if key not in ("fingerprint", "contentKey")})


class Driver:
    """One `python -m lprl_workload train` process; the ones without Ray are forked."""

    def __init__(
        self,
        ray: Ray | None,
        root: Path,
        name: str,
        attempt: int = 1,
        changes: Mapping[str, Any] | None = None,
        program: Sequence[str] = ("-m", "lprl_workload"),
    ) -> None:
        self.ray = ray
        base = {"job_name": name, "checkpoint": {"directory": {"volume": "all", "path": f"runs/{name}"}}}
        config = root / f"{name}.json"
        config.write_text(run_config(root, merged(base, changes or {})).model_dump_json(by_alias=True))
        self.folder = root / "all" / "runs" / name
        self.pace = root / f"{name}.pace"
        """Of runs whose reward is PACED: how many responses the driver scores; all without it."""
        self.term = root / f"{name}-a{attempt}.term"
        self.log = root / f"{name}-a{attempt}.log"
        env = {**os.environ, **RAY_ENV, "LPRL_VOLUMES_ROOT": str(root), "LPRL_TERMINATION_LOG": str(self.term)}
        env |= {"LPRL_LOCAL_CONFIGMAPS": str(root / "cm"), ENV_PACE: str(self.pace), **({"RAY_ADDRESS": ray.address} if ray else {})}
        self.progress_file = root / "cm" / f"{name}-a{attempt}-progress" / "progress.json"
        arguments = ["train", "--config", str(config), "--attempt", str(attempt)]
        self.process: subprocess.Popen[bytes] | Forked
        if ray:
            line = [sys.executable, *program, *arguments]
            self.process = subprocess.Popen(line, env=env, stdout=self.log.open("wb"), stderr=subprocess.STDOUT)
        else:
            self.process = Forked([*arguments, "--in-process"], env, self.log)

    def up_to(self, step: int) -> None:
        """Let a PACED run go on to about `step`, and hold it there."""
        aside = self.pace.with_suffix(".tmp")
        aside.write_text(str(RESPONSES * (step + 1)))
        aside.rename(self.pace)

    def let_go(self) -> None:
        """Hold a PACED run no longer."""
        self.pace.unlink()

    def wait(self, code: int = ExitCode.OK, seconds: float = DEADLINE_S) -> "Driver":
        try:
            found = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"not ended after {seconds} s: {self.log.read_text()[-4000:]}{self.ray.said() if self.ray else ''}"
            ) from None
        assert found == code, f"exit {found}: {self.log.read_text()[-4000:]}"
        return self

    def until(self, condition: Callable[[dict[str, Any]], bool], or_ended: bool = False) -> None:
        """Wait for what progress says; a run that ends before is an error, or as good."""
        deadline = time.monotonic() + DEADLINE_S
        while not (self.progress_file.exists() and condition(json.loads(self.progress_file.read_text()))):
            if self.process.poll() is not None and or_ended:
                return
            assert self.process.poll() is None, self.log.read_text()[-4000:]
            assert time.monotonic() < deadline, self.log.read_text()[-4000:]
            time.sleep(0.05)

    def actors(self, kind: str) -> list[int]:
        """Process ids of this cluster's actors by class name: Ray titles its processes, and a raylet of ours is their parent."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                parent = (path.parent / "stat").read_text().rpartition(")")[2].split()[1]
                ours = self.marker in Path(f"/proc/{parent}/cmdline").read_bytes()
                if ours and path.read_bytes().startswith(f"ray::{kind}".encode()):
                    found.append(int(path.parent.name))
            except OSError:
                continue
        return found

    marker = b""

    def series(self) -> list[dict[str, Any]]:
        return series_of(self.folder)

    def outcome(self) -> dict[str, Any]:
        return outcome_of(self.folder)


@pytest.fixture(scope="module")
def train_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volumes root with a tiny model and task."""
    found = tmp_path_factory.mktemp("volumes")
    write_inputs(found)
    return found


@pytest.fixture(scope="session")
def driver() -> type[Driver]:
    return Driver


@pytest.fixture(scope="module")
def ray_head(train_root: Path) -> Iterator[Ray]:
    """A Ray of a head without CPUs, one for a module: each costs four seconds of processor time."""
    # Ray's socket paths must stay short.
    temp = Path(f"/tmp/lprl-ray-{os.getpid()}-{time.monotonic_ns() % 10**6}")
    temp.mkdir(mode=0o700)
    found = Ray(temp, train_root)
    Driver.marker = str(temp).encode()
    yield found
    found.stop()
    subprocess.run(["rm", "-rf", str(temp)], check=True)


@pytest.fixture
def ray_nodes(ray_head: Ray) -> Iterator[Ray]:
    """The Ray of this module, with no other nodes than a test starts."""
    yield ray_head
    ray_head.stop(keep=1)
