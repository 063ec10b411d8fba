"""The local adapter executes Jobs as Kubernetes does: real processes. What both adapters promise: test_cluster_rules.py."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lprl_api import names
from lprl_operator.decide.actions import Create, Delete, ref_of
from lprl_operator.decide.observed import Key, Observed
from lprl_operator.places.local.cluster import LocalCluster
from lprl_operator.places.local.folders import Folders

KEY = Key("default", "toy")
OWNER = {"apiVersion": names.API_VERSION, "kind": names.KIND, "name": "toy", "uid": "u1"}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LocalCluster]:
    with LocalCluster(Folders.of(tmp_path / "state", tmp_path / "volumes")) as found:
        yield found


def wait(cluster: LocalCluster, done: Callable[[Observed], bool], seconds: float = 180.0) -> Observed:
    deadline = time.monotonic() + seconds
    while True:
        cluster.step()
        seen = cluster.observe(KEY)
        if done(seen):
            return seen
        assert time.monotonic() < deadline, seen
        time.sleep(0.05)


def job(name: str, code: str, **spec: Any) -> dict[str, Any]:
    container = {
        "name": "work",
        "command": ["python", "-c", code],
        "env": [{"name": "WHO", "value": "pod"}, {"name": "GREETING", "value": "hello $(WHO)"}],
        "volumeMounts": [{"name": "vol-models", "mountPath": "/volumes/models"}, {"name": "config", "mountPath": "/etc/lprl"}],
    }
    volumes = [
        {"name": "vol-models", "persistentVolumeClaim": {"claimName": "claim"}},
        {"name": "config", "configMap": {"name": "settings"}},
    ]
    template = {"metadata": {"labels": {}}, "spec": {"containers": [container], "volumes": volumes, "restartPolicy": "Never"}}
    policy = {
        "rules": [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [3, 5]}},
        ]
    }
    meta = {"name": name, "namespace": "default", "labels": {}, "ownerReferences": [OWNER]}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": meta,
        "spec": {"template": template, "podFailurePolicy": policy, "podReplacementPolicy": "Failed", **spec},
    }


def indexed(name: str, code: str, completions: int = 3, **spec: Any) -> dict[str, Any]:
    more = {"completionMode": "Indexed", "completions": completions, "parallelism": 2, "backoffLimitPerIndex": 1, **spec}
    return job(name, code, **more)


def test_a_pod_sees_what_the_template_says(cluster: LocalCluster) -> None:
    code = (
        "import os,pathlib as p;"
        "p.Path(os.environ['LPRL_VOLUMES_ROOT'],'models','out').write_text(os.environ['GREETING']+os.environ['JOB_COMPLETION_INDEX']);"
        "p.Path(os.environ['LPRL_TERMINATION_LOG']).write_text('done')"
    )
    cluster.apply([Create(job("one", code))])
    seen = wait(cluster, lambda s: s.jobs["one"].finished == "Complete")
    assert seen.jobs["one"].exits[0].message == "done"
    assert seen.jobs["one"].completed == {0}
    assert (cluster.folders.volumes / "claim" / "out").read_text() == "hello pod0"


def test_config_map_values_are_mounted(cluster: LocalCluster) -> None:
    values = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings", "namespace": "default"}, "data": {"a.json": "[7]"}}
    document = job("reads", "")
    document["spec"]["template"]["spec"]["containers"][0]["command"] = [
        "python",
        "-c",
        "import json,os,sys;open(os.environ['LPRL_TERMINATION_LOG'],'w').write(str(json.load(open(sys.argv[1]))))",
        "/etc/lprl/a.json",
    ]
    cluster.apply([Create(values), Create(document)])
    assert wait(cluster, lambda s: bool(s.jobs["reads"].finished)).jobs["reads"].exits[0].message == "[7]"


FAILURES = [
    pytest.param("raise SystemExit(3)", "PodFailurePolicy", 3, 1, id="user-error-fails-the-job-at-once"),
    pytest.param("raise SystemExit(1)", "FailedIndexes", 1, 2, id="crash-is-retried-per-index"),
]


@pytest.mark.parametrize(("code", "reason", "exit_code", "runs"), FAILURES)
def test_failing_index(cluster: LocalCluster, code: str, reason: str, exit_code: int, runs: int) -> None:
    cluster.apply([Create(indexed("bad", code, completions=1))])
    seen = wait(cluster, lambda s: s.jobs["bad"].finished == "Failed").jobs["bad"]
    assert (seen.reason, seen.exits[0].exit_code) == (reason, exit_code)
    assert len(list((cluster.folders.pods).glob("bad-0-*"))) == runs


def test_a_failed_container_leaves_the_end_of_its_log(cluster: LocalCluster) -> None:
    cluster.apply([Create(indexed("bad", "print('line one'); raise SystemExit(3)", completions=1))])
    assert "line one" in wait(cluster, lambda s: bool(s.jobs["bad"].finished)).jobs["bad"].exits[0].message


def test_an_index_that_crashed_once_completes(cluster: LocalCluster) -> None:
    code = (
        "import os,pathlib as p,sys;f=p.Path(os.environ['LPRL_VOLUMES_ROOT'],'models','seen'+os.environ['JOB_COMPLETION_INDEX']);"
        "first=not f.exists();f.touch();sys.exit(1 if first else 0)"
    )
    cluster.apply([Create(indexed("flaky", code))])
    seen = wait(cluster, lambda s: bool(s.jobs["flaky"].finished)).jobs["flaky"]
    assert (seen.finished, seen.completed) == ("Complete", {0, 1, 2})


def test_parallelism_bounds_active_pods(cluster: LocalCluster) -> None:
    most = 0
    cluster.apply([Create(indexed("many", "import time; time.sleep(0.3)", completions=4))])

    def done(seen: Observed) -> bool:
        nonlocal most
        most = max(most, seen.jobs["many"].active)
        return bool(seen.jobs["many"].finished)

    wait(cluster, done)
    assert most == 2


def test_killed_pod_is_seen_and_retried(cluster: LocalCluster) -> None:
    code = (
        "import os,pathlib as p,time;f=p.Path(os.environ['LPRL_VOLUMES_ROOT'],'models','again');"
        "x=f.exists();f.touch();time.sleep(0 if x else 60)"
    )
    cluster.apply([Create(indexed("killed", code, completions=1))])
    marker = cluster.folders.volumes / "claim" / "again"
    wait(cluster, lambda s: marker.exists())
    pid = json.loads((cluster.folders.pods / "killed-0-0" / "work" / "launch.json").read_text())["pid"]
    os.kill(pid, signal.SIGKILL)
    assert wait(cluster, lambda s: bool(s.jobs["killed"].finished)).jobs["killed"].finished == "Complete"


def test_delete_ends_the_pods_and_their_children(cluster: LocalCluster) -> None:
    code = (
        "import os,subprocess,sys,pathlib as p,time;"
        "c=subprocess.Popen([sys.executable,'-c','import time;time.sleep(600)'],start_new_session=True);"
        "p.Path(os.environ['LPRL_VOLUMES_ROOT'],'models','child').write_text(str(c.pid));time.sleep(600)"
    )
    cluster.apply([Create(job("long", code))])
    child = cluster.folders.volumes / "claim" / "child"
    seen = wait(cluster, lambda s: child.exists() and child.read_text() != "")
    cluster.apply([Delete(ref_of(job("long", "")), uid=seen.jobs["long"].uid)])
    wait(cluster, lambda s: "long" not in s.jobs)
    assert not Path(f"/proc/{child.read_text()}").exists() or sys.platform != "linux"
