"""`kubectl lprl` on a real API server: a job's life watched from outside, and every refusal in words. The operator is the real one as
a process, pods are played by `hand`, the kubelet's logs and the driver's metrics by `kubelet`."""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.contract.hand import Hand, manifest
from tests.contract.kubelet import Server, add_node, certificate, own_address
from tests.contract.operator_process import Operator, wait
from tests.contract.test_crash_points import WATCHED, ready

from lprl_api import names
from lprl_cli import exits
from lprl_cli.main import main
from lprl_operator.kube.api import MERGE, ApiError, KubeApi

__all__ = ["ready"]
pytestmark = pytest.mark.cluster
EXPOSED = ['lprl_reward{job="toy"} 0.5\n', 'lprl_sync_seconds{job="toy"} 1.5\n', "python_gc 1\n"]


class Space:
    """A namespace of its own."""

    def __init__(self) -> None:
        self.api, self.name = KubeApi.connect(), f"cli-{uuid.uuid4().hex[:8]}"
        self.api.post("/api/v1/namespaces", {"metadata": {"name": self.name}})
        self.jobs = WATCHED[names.KIND].format(self.name)
        self.pods = f"/api/v1/namespaces/{self.name}/pods"

    def submit(self, name: str = "toy", **spec: Any) -> dict[str, Any]:
        return self.api.post(self.jobs, manifest(name, self.name, **spec))

    def says(self, status: dict[str, Any], name: str = "toy") -> None:
        """Write a status as the operator would."""
        self.api.patch(f"{self.jobs}/{name}/status", {"status": status}, MERGE)

    def add_head(self, attempt: int, ports: tuple[int, ...] = (), **spec: Any) -> str:
        """Make the head pod of an attempt; returns its name."""
        labels = {names.LABEL_JOB: "toy", names.LABEL_ROLE: "head", names.LABEL_ATTEMPT: str(attempt)}
        driver = {"name": "driver", "image": "none", "ports": [{"name": "lprl-metrics", "containerPort": p} for p in ports]}
        wanted = {"containers": [{"name": "ray-head", "image": "none"}, driver], **spec}
        self.api.post(self.pods, {"metadata": {"name": f"toy-a{attempt}-head", "labels": labels}, "spec": wanted})
        return f"toy-a{attempt}-head"

    def runs(self, pod: str, **status: Any) -> None:
        """Have a pod run, as its kubelet would say."""
        running = {"image": "", "imageID": "", "ready": True, "restartCount": 0, "state": {"running": {}}}
        states = [{"name": c, **running} for c in ("ray-head", "driver")]
        said = {"phase": "Running", "containerStatuses": states, **status}
        self.api.patch(f"{self.pods}/{pod}/status", {"status": said}, MERGE)


@pytest.fixture
def space(ready: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Space]:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/kubectl-lprl"])
    found = Space()
    wait(lambda: found.api.get(f"/api/v1/namespaces/{found.name}/serviceaccounts")["items"], "pods may be made", 180)
    yield found
    for pod in found.api.get(found.pods)["items"]:  # no kubelet would end those that have a node
        found.api.delete(f"{found.pods}/{pod['metadata']['name']}", {"gracePeriodSeconds": 0})
    found.api.delete(f"/api/v1/namespaces/{found.name}", {"propagationPolicy": "Background"})


@pytest.fixture
def operator(space: Space, tmp_path: Path) -> Iterator[Operator]:
    found = Operator(tmp_path, "operator-cli", {"namespaces": [space.name]}).start()
    yield found
    found.stop()


class Player:
    """Moves the pods of a namespace on, in the background, as far as it is let."""

    def __init__(self, space: Space) -> None:
        self.hand = Hand(KubeApi.connect(), space.name)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._play, daemon=True)
        self._thread.start()

    def _play(self) -> None:
        while not self._over.wait(0.1):
            with contextlib.suppress(ApiError):  # a busy server: the next step tries again
                self.hand.step()

    def stop(self) -> None:
        self._over.set()
        self._thread.join(10)


Said = tuple[int, str, str]


@pytest.fixture
def kubectl(space: Space, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Call the plugin in this process; returns exit code, output and errors."""

    def call(*line: str) -> Said:
        capsys.readouterr()
        code = main([*line, "-n", space.name])
        both = capsys.readouterr()
        assert "Traceback" not in both.err
        return code, both.out, both.err

    return call


def started(*line: str) -> "subprocess.Popen[str]":
    """The plugin as a process of its own."""
    program = "import sys; sys.argv[0] = 'kubectl-lprl'; from lprl_cli.main import main; sys.exit(main())"
    return subprocess.Popen([sys.executable, "-c", program, *line], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_life_from_outside(space: Space, operator: Operator, kubectl: Callable[..., Said]) -> None:
    player = Player(space)
    player.hand.drives = False
    try:
        space.submit()
        watching = started("status", "toy", "-n", space.name, "--watch")
        wait(lambda: {"1/1", "3/3", "Running"} <= set(kubectl("status")[1].split()), "the driver reported", 180)
        _looks(space, kubectl)
        _suspends(space, player, kubectl)
        assert watching.wait(180) == exits.SUSPENDED, watching.communicate()
        seen = watching.communicate()[0]
        assert "Running" in seen and "0.900" in seen and "CONDITION" in seen
        assert kubectl("resume", "toy")[0] == exits.OK
        following = started("-n", space.name, "status", "toy", "--watch", "-o", "json")
        assert following.stdout is not None
        first = following.stdout.readline()
        player.hand.reports = True
        wait(lambda: "Running" in kubectl("status", "toy")[1].splitlines()[1], "attempt 2 runs", 180)
        player.hand.drives = True
        assert following.wait(180) == exits.OK, following.communicate()
        phases = [json.loads(line)["status"]["phase"] for line in [first, *following.communicate()[0].splitlines()]]
        assert phases[-1] == "Succeeded" and "Running" in phases
        code, _, text = kubectl("suspend", "toy")
        assert (code, "has ended (Succeeded)" in text) == (exits.USER_ERROR, True)
    finally:
        player.stop()


def _looks(space: Space, kubectl: Callable[..., Said]) -> None:
    """What a running job shows."""
    code, out, _ = kubectl("status")
    assert code == exits.OK
    head, row = out.splitlines()
    cells = dict(zip(head.split(), row.split(), strict=False))
    assert (cells["PHASE"], cells["PRECISION"], cells["NODES"], cells["STEP"]) == ("Running", "int4-qat/int4", "1/1", "3/3")
    _, out, _ = kubectl("get", "toy")
    assert "ClusterReady" in out and "EVENT AGO" in out and "Converted" in out
    [document] = json.loads(kubectl("status", "-o", "json")[1])
    assert document["metadata"]["name"] == "toy" and "managedFields" not in document["metadata"]
    _, out, _ = kubectl("logs", "toy", "--list")
    assert [line.split()[1] for line in out.splitlines()[1:] if "/driver" in line] == ["driver"]
    assert {line.split()[1] for line in out.splitlines()[1:]} >= {"inspect", "convert", "finalise", "head", "driver", "worker"}
    code, _, text = kubectl("logs", "toy")
    assert code == exits.USER_ERROR and "toy-a1" in text and "/driver has no node yet" in text
    _, out, _ = kubectl("metrics", "toy", "-o", "json")
    found = json.loads(out)
    assert found["status"]["step"] == 3 and found["status"]["reward"] == 0.9 and not found["driver"]
    assert "9464 does not answer" in found["missing"]
    assert "1 x" in kubectl("plan", "toy")[1] or "rank" in kubectl("plan", "toy")[1]


def _suspends(space: Space, player: Player, kubectl: Callable[..., Said]) -> None:
    assert "--watch" in kubectl("suspend", "toy")[1]
    assert "already" in kubectl("suspend", "toy")[1]
    assert space.api.get(f"{space.jobs}/toy")["spec"]["suspend"] is True
    # The driver checkpoints and leaves with the code that says so.
    player.hand.reports = False
    player.hand.end_driver(names.ExitCode.SUSPENDED)
    wait(lambda: space.api.get(f"{space.jobs}/toy")["status"]["phase"] == "Suspended", "it is suspended", 180)


def test_a_watch_ends_with_the_job(space: Space) -> None:
    space.submit()
    watching = started("status", "toy", "-n", space.name, "-w")
    failed = {"type": "Failed", "status": "True", "reason": "UserError", "message": "no such prompt", "lastTransitionTime": _now()}
    space.says({"phase": "Running", "attempt": 1, "conditions": []})
    time.sleep(1.0)
    space.says({"phase": "Failed", "conditions": [failed], "message": "no such prompt"})
    assert watching.wait(180) == exits.JOB_FAILED
    assert "no such prompt" in watching.communicate()[0]
    space.submit("gone")
    watching = started("status", "gone", "-n", space.name, "-w")
    assert watching.stdout is not None
    assert watching.stdout.readline().startswith("NAME")
    space.api.delete(f"{space.jobs}/gone", {})
    assert watching.wait(180) == exits.USER_ERROR
    assert "job gone was deleted" in watching.communicate()[1]


def test_the_log_of_the_right_container(space: Space, kubectl: Callable[..., Said], tmp_path: Path) -> None:
    kubelet = Server("127.0.0.1", ["one\n", "two\n", "three\n"], certificate(tmp_path))
    node = f"node-{space.name}"
    add_node(space.api, node, "127.0.0.1", kubelet.port)
    try:
        space.submit()
        space.says({"phase": "Running", "attempt": 2})
        for attempt in (1, 2):
            space.runs(space.add_head(attempt, nodeName=node))
        _answers(space, kubelet, kubectl)
    finally:
        space.api.delete(f"/api/v1/nodes/{node}", {})
        kubelet.close()


def _answers(space: Space, kubelet: Server, kubectl: Callable[..., Said]) -> None:
    cases: list[tuple[list[str], str, dict[str, list[str]]]] = [
        ([], "toy-a2-head/driver", {"tailLines": ["1000"], "limitBytes": [str(32 << 20)]}),
        (["--role", "head", "--tail", "all"], "toy-a2-head/ray-head", {}),
        (["--attempt", "1", "--tail", "5", "-p"], "toy-a1-head/driver", {"tailLines": ["5"], "previous": ["true"]}),
    ]
    for line, want, asked in cases:
        code, out, text = kubectl("logs", "toy", *line)
        assert (code, out) == (exits.OK, "one\ntwo\nthree\n"), text
        path, query = kubelet.asked[-1]
        assert path == f"/containerLogs/{space.name}/{want}"
        assert query.items() >= asked.items() and ("limitBytes" in query) == ("tailLines" in query)
    following = started("logs", "toy", "-n", space.name, "-f")
    assert following.stdout is not None
    assert following.stdout.readline() == "one\n"
    assert following.poll() is None, "lines are there before the log ends"
    done = {"name": "driver", "image": "", "imageID": "", "ready": False, "restartCount": 0, "state": {"terminated": {"exitCode": 0}}}
    space.api.patch(f"{space.pods}/toy-a2-head/status", {"status": {"containerStatuses": [done]}}, MERGE)
    assert following.wait(180) == exits.OK
    assert following.communicate()[0] == "two\nthree\n"
    assert kubelet.asked[-1][1]["follow"] == ["true"]


def test_the_drivers_numbers_through_the_api_server(space: Space, kubectl: Callable[..., Said], tmp_path: Path) -> None:
    address = own_address()
    driver = Server(address, EXPOSED)
    try:
        space.submit()
        space.says({"phase": "Running", "attempt": 1, "training": {"step": 1, "steps": 3, "reward": "0.400"}})
        space.runs(space.add_head(1, (driver.port,)), podIP=address, podIPs=[{"ip": address}])
        found = json.loads(kubectl("metrics", "toy", "--output", "json")[1])
        assert found["driver"] == {"reward": 0.5, "sync_seconds": 1.5} and not found["missing"]
        assert found["status"] == {"step": 1, "steps": 3, "reward": 0.4}
        assert driver.asked == [("/metrics", {})]
        assert "sync_seconds" in kubectl("metrics", "toy")[1]
        code, out, _ = kubectl("metrics", "toy", "--kubeconfig", _reader(space, tmp_path))
        assert code == exits.OK and "takes the right to get pods/proxy" in out and "0.400" in out
    finally:
        driver.close()


def test_refusals(space: Space, kubectl: Callable[..., Said], tmp_path: Path) -> None:
    space.submit()
    for line, want in (
        (("status", "none"), "job none: not found"),
        (("logs", "none"), "job none: not found"),
        (("metrics", "none", "-o", "json"), "job none: not found"),
        (("suspend", "none"), "job none: not found"),
        (("logs", "toy"), "toy has no inspect (Pending)"),
        (("logs", "toy", "--role", "worker"), "toy has no worker"),
        (("suspend", "toy", "--kubeconfig", _reader(space, tmp_path)), "not permitted: lowprecisionrljobs.lprl.dev"),
    ):
        code, _, text = kubectl(*line)
        assert code == exits.USER_ERROR and want in text and len(text.splitlines()) == 2, text
    assert kubectl("status", "toy", "--kubeconfig", _reader(space, tmp_path))[0] == exits.OK


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _reader(space: Space, folder: Path) -> str:
    """A kubeconfig of someone who may read jobs, pods and events, and nothing else."""
    groups = {"": ["pods", "events"], "batch": ["jobs"], names.GROUP: [names.PLURAL]}
    rules = [{"apiGroups": [g], "resources": r, "verbs": ["get", "list", "watch"]} for g, r in groups.items()]
    rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{space.name}"
    subject = {"kind": "ServiceAccount", "name": "default", "namespace": space.name}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"}
    if not space.api.get(f"{rbac}/roles")["items"]:
        space.api.post(f"{rbac}/roles", {"metadata": {"name": "reader"}, "rules": rules})
        space.api.post(f"{rbac}/rolebindings", {"metadata": {"name": "reader"}, "subjects": [subject], "roleRef": role})
    account = f"/api/v1/namespaces/{space.name}/serviceaccounts/default/token"
    token = space.api.post(account, {"spec": {}})["status"]["token"]
    document = yaml.safe_load(Path(os.environ["KUBECONFIG"]).read_text())
    document["users"] = [{"name": u["name"], "user": {"token": token}} for u in document["users"]]
    path = folder / "reader.yaml"
    path.write_text(yaml.safe_dump(document))
    return str(path)
