"""Faults on a real API server with the real Job controller, scheduler and KubeRay: killed operators, lost pods, an API server that
is away, edits by others. Every test ends with the status right, nothing made twice and nothing left over."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.contract.hand import Hand, manifest
from tests.simulated.conftest import Operator, Space, add_node, wait

from lprl_api import names
from lprl_operator.reconcile.kube.api import MERGE, ApiError, KubeApi

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
CLUSTERS = "apis/ray.io/v1:rayclusters"
BATCH = "apis/batch/v1:jobs"
PHASES = ["Inspecting", "Converting", "Provisioning", "Running"]
FAST = {"failurePolicy": {"backoffSeconds": 1}}
Make = Callable[..., Operator]


@pytest.fixture(scope="module", autouse=True)
def nodes(api: KubeApi) -> Iterator[None]:
    for number in range(2):
        add_node(api, f"small-{number}", 0)
    yield
    for number in range(2):
        api.delete(f"/api/v1/nodes/small-{number}", {})


@pytest.fixture
def hand(space: Space) -> Hand:
    return Hand(space.api, space.name, kubelet=False)


def phase(space: Space) -> str:
    return str(space.status("toy").get("phase", ""))


def reach(space: Space, hand: Hand, wanted: str) -> None:
    """Bring the job to a phase and hold it there: the pods of the next stage get no help."""
    order = {"Inspecting": 0, "Converting": 1, "Provisioning": 2, "Running": 3}
    hand.drives = False
    hand.reports = wanted == "Running"
    helping = {0: (), 1: ("inspect",), 2: ("inspect", "convert", "finalise"), 3: ("inspect", "convert", "finalise")}[order[wanted]]
    hand.roles = frozenset(helping)
    wait(lambda: phase(space) == wanted, f"the job is {wanted}", 60, hand.step)


def finish(space: Space, hand: Hand) -> dict[str, Any]:
    """Let everything go on to the end."""
    hand.roles, hand.reports, hand.drives = None, True, True
    wait(lambda: phase(space) in ("Succeeded", "Failed"), "the job ends", 90, hand.step)
    wait(lambda: not space.api.get(space.path(CLUSTERS))["items"], "its cluster is deleted", 30)
    return space.status("toy")


def once(hand: Hand) -> bool:
    """Whether no object was ever made a second time."""
    return all(len(uids) == 1 for uids in hand.seen.values())


@pytest.mark.parametrize("wanted", PHASES)
def test_operator_killed_in_every_phase(wanted: str, space: Space, hand: Hand, make_operator: Make) -> None:
    operator = make_operator().start()
    space.submit(manifest("toy", space.name))
    reach(space, hand, wanted)
    operator.kill()
    hand.step()
    make_operator("operator-2", leaderElection={"leaseDurationSeconds": 3, "renewDeadlineSeconds": 2, "retryPeriodSeconds": 1}).start()
    status = finish(space, hand)
    assert (status["phase"], status["attempt"], status["restartsUsed"]) == ("Succeeded", 1, 0)
    assert once(hand), hand.seen


def test_two_operators_at_once_without_election(space: Space, hand: Hand, make_operator: Make) -> None:
    for name in ("operator-1", "operator-2"):
        make_operator(name, leaderElection={"enabled": False}).start()
    space.submit(manifest("toy", space.name))
    status = finish(space, hand)
    assert (status["phase"], status["attempt"]) == ("Succeeded", 1)
    assert once(hand), hand.seen


def test_a_killed_leader_is_replaced_within_its_lease(space: Space, hand: Hand, make_operator: Make) -> None:
    quick = {"leaseDurationSeconds": 6, "renewDeadlineSeconds": 4, "retryPeriodSeconds": 1}
    first = make_operator("operator-1", leaderElection=quick).start()
    wait(first.is_leading, "the first leads", 60)
    second = make_operator("operator-2", leaderElection=quick).start()
    assert not second.is_leading()
    first.kill()
    killed = time.monotonic()
    wait(second.is_leading, "the second leads", 30)
    took = time.monotonic() - killed
    print(f"fail-over after kill -9: {took:.1f} s of a lease of 6 s")
    space.submit(manifest("toy", space.name))
    assert finish(space, hand)["phase"] == "Succeeded"
    second.stop()
    lease = space.api.get("/apis/coordination.k8s.io/v1/namespaces/default/leases/lprl-operator")
    assert lease["spec"]["holderIdentity"] == ""  # a leader that is asked to end gives its lease back


@pytest.mark.parametrize(
    ("code", "reason"),
    [pytest.param(1, "DriverCrashed", id="crash"), pytest.param(7, "WorkersLost", id="trainer-lost")],
)
def test_a_driver_that_ends_badly_is_followed_by_attempt_2(code: int, reason: str, space: Space, hand: Hand, make_operator: Make) -> None:
    make_operator().start()
    space.submit(manifest("toy", space.name, **FAST))
    reach(space, hand, "Running")
    hand.end_driver(code, "boom")
    wait(lambda: space.status("toy").get("attempt") == 2, "attempt 2", 60, hand.step)
    status = finish(space, hand)
    assert (status["phase"], status["attempt"], status["restartsUsed"]) == ("Succeeded", 2, 1)
    assert [f["reason"] for f in status["failures"]] == [reason]
    assert once(hand), hand.seen


def test_a_users_mistake_ends_the_job_at_once(space: Space, hand: Hand, make_operator: Make) -> None:
    make_operator().start()
    space.submit(manifest("toy", space.name, **FAST))
    reach(space, hand, "Running")
    hand.end_driver(names.ExitCode.USER_ERROR, "spec.data.labelKey: no such column")
    status = finish(space, hand)
    assert (status["phase"], status["attempt"]) == ("Failed", 1)
    assert "no such column" in space.condition("toy", "Failed")["message"]


def test_a_lost_head_is_followed_by_attempt_2(space: Space, hand: Hand, make_operator: Make) -> None:
    make_operator().start()
    space.submit(manifest("toy", space.name, **FAST))
    reach(space, hand, "Running")
    pods = space.path("api/v1:pods")
    head = space.api.get(pods, labelSelector="ray.io/node-type=head")["items"][0]
    space.api.delete(f"{pods}/{head['metadata']['name']}", {"gracePeriodSeconds": 0})
    wait(lambda: space.status("toy").get("attempt") == 2, "attempt 2", 90, hand.step)
    status = finish(space, hand)
    assert status["phase"] == "Succeeded"
    assert [f["reason"] for f in status["failures"]] == ["HeadLost"]


def test_a_cluster_deleted_by_somebody_is_replaced(space: Space, hand: Hand, make_operator: Make) -> None:
    make_operator().start()
    space.submit(manifest("toy", space.name, **FAST))
    reach(space, hand, "Running")
    space.api.delete(f"{space.path(CLUSTERS)}/toy-a1", {"propagationPolicy": "Background"})
    status = finish(space, hand)
    assert (status["phase"], status["attempt"]) == ("Succeeded", 2)


@pytest.mark.parametrize("wanted", PHASES)
def test_a_job_deleted_in_any_phase_leaves_nothing(wanted: str, space: Space, hand: Hand, make_operator: Make) -> None:
    make_operator().start()
    space.submit(manifest("toy", space.name))
    reach(space, hand, wanted)
    space.api.delete(f"{space.jobs()}/toy", {})
    kinds = [CLUSTERS, BATCH, "api/v1:pods", "api/v1:configmaps", "api/v1:serviceaccounts", "apis/networking.k8s.io/v1:networkpolicies"]
    kinds += ["apis/rbac.authorization.k8s.io/v1:roles", "apis/rbac.authorization.k8s.io/v1:rolebindings"]

    def left() -> list[str]:
        selector = f"{names.LABEL_MANAGED_BY}={names.MANAGED_BY}"
        return [f"{k}/{o['metadata']['name']}" for k in kinds for o in space.api.get(space.path(k), labelSelector=selector)["items"]]

    wait(lambda: not left(), "nothing is left", 60)


def test_suspended_and_resumed(space: Space, hand: Hand, make_operator: Make) -> None:
    make_operator().start()
    space.submit(manifest("toy", space.name))
    reach(space, hand, "Running")
    space.api.patch(f"{space.jobs()}/toy", {"spec": {"suspend": True}}, MERGE)

    def asked() -> bool:
        data = space.api.get(f"{space.path('api/v1:configmaps')}/toy-a1-progress")["data"]
        return '"suspend": true' in data[names.CONTROL_KEY]

    wait(asked, "the driver is asked to checkpoint", 30)
    hand.end_driver(names.ExitCode.SUSPENDED, "checkpointed at step 3")
    wait(lambda: phase(space) == "Suspended", "suspended", 60)
    assert not space.api.get(space.path(CLUSTERS))["items"]
    space.api.patch(f"{space.jobs()}/toy", {"spec": {"suspend": False}}, MERGE)
    status = finish(space, hand)
    assert (status["phase"], status["attempt"], status["restartsUsed"]) == ("Succeeded", 2, 0)


def test_the_time_to_live_deletes_the_job(space: Space, hand: Hand, make_operator: Make) -> None:
    make_operator().start()
    space.submit(manifest("toy", space.name, ttlSecondsAfterFinished=1))
    wait(lambda: not space.api.get(space.jobs())["items"], "the job deleted itself", 90, hand.step)


def test_what_a_queue_edits_is_never_fought(space: Space, hand: Hand, make_operator: Make) -> None:
    """Kueue flips suspend and merges scheduling settings into live children, and takes them back on eviction."""
    make_operator(resyncSeconds=30).start()
    space.submit(manifest("toy", space.name))
    reach(space, hand, "Provisioning")
    path = f"{space.path(CLUSTERS)}/toy-a1"
    wait(lambda: space.api.get(space.path(CLUSTERS))["items"], "the cluster is there", 30)
    cluster = space.api.get(path)
    groups = cluster["spec"]["workerGroupSpecs"]
    groups[0]["template"]["spec"]["nodeSelector"] = {"queue": "blue"}
    groups[0]["template"]["metadata"].setdefault("labels", {})["kueue.x-k8s.io/podset"] = "workers"
    edit = {"metadata": {"labels": {"kueue.x-k8s.io/queue-name": "blue"}}, "spec": {"suspend": True, "workerGroupSpecs": groups}}
    space.api.patch(path, edit, MERGE)
    wait(lambda: space.condition("toy", "ClusterReady").get("reason") == "Queued", "told as queued", 40)
    time.sleep(5)
    now = space.api.get(path)
    assert now["spec"]["suspend"] is True
    assert now["spec"]["workerGroupSpecs"][0]["template"]["spec"]["nodeSelector"] == {"queue": "blue"}
    assert now["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "blue"
    del groups[0]["template"]["spec"]["nodeSelector"]
    space.api.patch(path, {"spec": {"suspend": False, "workerGroupSpecs": groups}}, MERGE)
    status = finish(space, hand)
    assert (status["phase"], status["attempt"]) == ("Succeeded", 1)
    assert once(hand), hand.seen


def test_a_status_edited_by_hand_is_put_right(space: Space, hand: Hand, make_operator: Make) -> None:
    make_operator().start()
    space.submit(manifest("toy", space.name))
    reach(space, hand, "Running")
    space.api.patch(f"{space.jobs()}/toy/status", {"status": {"phase": "Succeeded", "message": "by hand"}}, MERGE)
    wait(lambda: phase(space) == "Running", "the phase is what it is", 30)
    assert finish(space, hand)["phase"] == "Succeeded"


def test_the_api_server_is_away_for_half_a_minute(space: Space, hand: Hand, make_operator: Make) -> None:
    operator = make_operator().start()
    space.submit(manifest("toy", space.name))
    reach(space, hand, "Running")
    pid = int(Path(os.environ["LPRL_TEST_STATE"], "pid", "kube-apiserver").read_text().split()[0])
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(30)
    finally:
        os.kill(pid, signal.SIGCONT)
    wait(lambda: _answers(space), "the API server answers", 60)
    status = finish(space, hand)
    assert (status["phase"], status["attempt"], status["restartsUsed"]) == ("Succeeded", 1, 0)
    assert once(hand), hand.seen
    assert operator.is_leading()


def _answers(space: Space) -> bool:
    try:
        space.status("toy")
    except ApiError:
        return False
    return True
