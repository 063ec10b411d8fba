"""A rendered RayCluster as a real Ray on this machine: start, work, kill, delete."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lprl_api import names
from lprl_operator.decide.actions import Begin, Create, Delete, Hold, ref_of
from lprl_operator.decide.observed import Key, Observed
from lprl_operator.places.local.cluster import LocalCluster
from lprl_operator.places.local.folders import Folders
from lprl_operator.places.local.process import marked_processes

pytestmark = pytest.mark.ray
KEY = Key("default", "toy")
DRIVER = """
import json, os, pathlib, socket, sys, time
address = os.environ["RAY_ADDRESS"]
host, port = address.rsplit(":", 1)
deadline = time.time() + 240
while socket.socket().connect_ex((host, int(port))) and time.time() < deadline:
    time.sleep(0.1)
import ray
ray.init(address=address, log_to_driver=False)
@ray.remote(num_cpus=1, resources={"slot": 1})
class Rank:
    def where(self):
        return ray.get_runtime_context().get_node_id(), os.environ["OMP_NUM_THREADS"], os.environ["LPRL_ATTEMPT"]
ranks = [Rank.remote() for _ in range(2)]
found = ray.get([rank.where.remote() for rank in ranks])
pathlib.Path(os.environ["LPRL_TERMINATION_LOG"]).write_text(json.dumps(sorted(found)))
while len(sys.argv) > 1 and sys.argv[1] == "stay":
    time.sleep(0.2)
"""


def raycluster(*arguments: str) -> dict[str, Any]:
    token = {"name": "RAY_AUTH_TOKEN", "valueFrom": {"secretKeyRef": {"name": "toy-a1", "key": "auth_token"}}}
    env = [{"name": "RAY_ADDRESS", "value": "127.0.0.1:6379"}, {"name": "RAY_AUTH_MODE", "value": "token"}, token]
    driver = {"name": "driver", "command": ["python", "-c", DRIVER, *arguments], "env": env}
    head = {"metadata": {"labels": {}}, "spec": {"containers": [{"name": "ray-head"}, driver], "restartPolicy": "Never"}}
    worker = {"name": "ray-worker", "resources": {"requests": {"cpu": "500m"}}, "env": [{"name": "LPRL_ATTEMPT", "value": "1"}]}
    group = {
        "groupName": "workers",
        "replicas": 2,
        "rayStartParams": {"resources": json.dumps(json.dumps({"slot": 1}))},
        "template": {"metadata": {"labels": {}}, "spec": {"containers": [worker], "restartPolicy": "Never"}},
    }
    meta = {"name": "toy-a1", "namespace": "default", "labels": {names.LABEL_JOB: "toy", names.LABEL_ATTEMPT: "1"}}
    spec = {"headGroupSpec": {"rayStartParams": {"num-cpus": "0"}, "template": head}, "workerGroupSpecs": [group]}
    return {"apiVersion": "ray.io/v1", "kind": "RayCluster", "metadata": meta, "spec": spec}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LocalCluster]:
    with LocalCluster(Folders.of(tmp_path / "state", tmp_path / "volumes")) as found:
        yield found
    assert marked_processes(f"{found.folders.state_id}:") == []


def wait(cluster: LocalCluster, done: Callable[[Observed], bool], seconds: float = 300.0) -> Observed:
    deadline = time.monotonic() + seconds
    while True:
        cluster.step()
        seen = cluster.observe(KEY)
        if done(seen):
            return seen
        assert time.monotonic() < deadline, seen
        time.sleep(0.1)


def kill(cluster: LocalCluster, pod: str, container: str) -> None:
    launch = json.loads((cluster.folders.pods / pod / container / "launch.json").read_text())
    os.kill(launch["pid"], signal.SIGKILL)


def driver_ended(seen: Observed) -> bool:
    head = seen.head(1)
    return head is not None and head.driver is not None and head.driver.state == "terminated"


def test_driver_runs_on_both_workers_and_its_exit_is_seen(cluster: LocalCluster) -> None:
    cluster.apply([Create(raycluster())])
    seen = wait(cluster, driver_ended)
    head = seen.head(1)
    assert head is not None and head.driver is not None
    assert head.driver.exit_code == 0, head.driver
    nodes = json.loads(head.driver.message)
    assert len({node for node, _, _ in nodes}) == 2
    assert {(threads, attempt) for _, threads, attempt in nodes} == {("1", "1")}
    assert (seen.clusters[0].head_ready, seen.clusters[0].head_reason) == (False, "Completed")
    assert head.ray is not None and head.ray.state == "running"
    temp = cluster.folders.ray_temp(seen.clusters[0].uid)
    cluster.apply([Delete(ref_of(raycluster()), seen.clusters[0].uid)])
    wait(cluster, lambda s: not s.clusters and not s.pods)
    assert not temp.exists()


def test_a_killed_worker_comes_back_and_a_killed_head_does_not(cluster: LocalCluster) -> None:
    cluster.apply([Create(raycluster("stay"))])
    wait(cluster, lambda s: bool(s.clusters) and s.clusters[0].ready_workers == 2 and s.clusters[0].head_ready)
    kill(cluster, "toy-a1-workers-worker-0-0", "ray-worker")
    wait(cluster, lambda s: s.clusters[0].ready_workers < 2)
    wait(cluster, lambda s: s.clusters[0].ready_workers == 2)
    kill(cluster, "toy-a1-head", "ray-head")
    wait(cluster, lambda s: not s.clusters[0].head_ready)
    head = cluster.observe(KEY).head(1)
    assert head is not None and head.ray is not None and head.ray.state == "terminated"
    time.sleep(2)
    cluster.step()
    assert not cluster.observe(KEY).clusters[0].head_ready


def test_the_next_attempt_runs_in_the_same_cluster(cluster: LocalCluster) -> None:
    first, second = raycluster("stay"), raycluster()
    first["metadata"]["annotations"] = second["metadata"]["annotations"] = {names.ANNOTATION_MADE_FROM: "x"}
    for document, attempt in ((first, "1"), (second, "2")):
        document["metadata"]["labels"][names.LABEL_ATTEMPT] = attempt
        for group in (document["spec"]["headGroupSpec"], *document["spec"]["workerGroupSpecs"]):
            group["template"]["metadata"]["labels"][names.LABEL_ATTEMPT] = attempt
    cluster.apply([Create(first)])
    made = wait(cluster, lambda s: bool(s.clusters) and s.clusters[0].ready_workers == 2 and s.clusters[0].head_ready).clusters[0]
    cluster.apply([Hold(ref_of(first), made.uid, 1, "toy")])
    held = wait(cluster, lambda s: s.clusters[0].emptied)
    assert (held.pods, held.clusters[0].held, held.clusters[0].provisioned) == ((), True, False)
    cluster.apply([Begin(second, made.uid, 1, False)])
    again = wait(cluster, lambda s: s.clusters[0].ready_workers == 2 and s.clusters[0].head_ready)
    assert (again.clusters[0].uid, again.clusters[0].attempt, {p.attempt for p in again.pods}) == (made.uid, 2, {2})
    assert {p.name.rsplit("-", 1)[0] for p in again.pods if p.role == "head"} == {"toy-a2"}
    assert (cluster.folders.pods / "toy-a1-head" / "driver" / "log").exists(), "what the attempt before logged stays"


SUPERVISOR = """
import sys, time
from pathlib import Path
from lprl_operator.decide.actions import Create
from lprl_operator.places.local.cluster import LocalCluster
from lprl_operator.places.local.folders import Folders
import json
root = Path(sys.argv[1])
with LocalCluster(Folders.of(root / "state", root / "volumes")) as cluster:
    cluster.apply([Create(json.loads(sys.argv[2]))])
    while True:
        cluster.step()
        time.sleep(0.1)
"""


def test_everything_dies_with_the_supervisor(tmp_path: Path) -> None:
    folders = Folders.of(tmp_path / "state", tmp_path / "volumes")
    supervisor = subprocess.Popen([sys.executable, "-c", SUPERVISOR, str(tmp_path), json.dumps(raycluster("stay"))])
    log = folders.pods / "toy-a1-workers-worker-1-0" / "ray-worker" / "log"
    deadline = time.monotonic() + 240
    while not (log.exists() and "Ray runtime started" in log.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert len(marked_processes(f"{folders.state_id}:")) > 6
    supervisor.kill()
    supervisor.wait()
    deadline = time.monotonic() + 180
    while marked_processes(f"{folders.state_id}:"):
        assert time.monotonic() < deadline, marked_processes(f"{folders.state_id}:")
        time.sleep(0.1)
    with LocalCluster(folders) as cluster:
        cluster.step()
        head = cluster.observe(KEY).head(1)
        assert head is not None and head.disruption and head.phase == "Failed"


def test_a_state_folder_has_one_owner(cluster: LocalCluster) -> None:
    from lprl_api.errors import UserError

    with pytest.raises(UserError, match=f"in use by process {os.getpid()}"), LocalCluster(cluster.folders):
        pass
