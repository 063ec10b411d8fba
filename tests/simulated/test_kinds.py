"""The operator is there first: our CRD and KubeRay come later, and both are seen without a restart."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import ControlPlane
from tests.contract.hand import Hand, manifest
from tests.simulated.conftest import Operator, Space, wait

from lprl_api.crd import crd
from lprl_operator.reconcile.kube.api import ApiError, KubeApi

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


@pytest.fixture
def plane(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ControlPlane]:
    """A control plane of its own: one without KubeRay."""
    found = ControlPlane(tmp_path / "cluster")
    (tmp_path / "cluster").mkdir()
    for name, value in found.up().items():
        monkeypatch.setenv(name, value)
    yield found
    found.down()


def test_kinds_that_come_after_the_operator(plane: ControlPlane, tmp_path: Path) -> None:
    api = KubeApi.connect()
    operator = Operator(tmp_path, "operator-1", {}).start()
    try:
        assert "does not serve" in operator.log()
        api.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", crd())
        space = Space(api)
        hand = Hand(api, space.name)
        wait(lambda: _submitted(space), "our kind is served", 30)
        wait(lambda: space.status("toy").get("phase") == "Inspecting", "the operator sees the job", 30)

        wait(lambda: space.condition("toy", "ClusterReady").get("reason") == "KubeRayMissing", "it waits for KubeRay", 60, hand.step)
        plane.up("--kuberay")
        wait(lambda: space.status("toy").get("phase") == "Succeeded", "the job runs to its end", 120, hand.step)
        status = space.status("toy")
        assert (status["attempt"], status.get("restartsUsed", 0)) == (1, 0)
        assert len(hand.seen["RayCluster", "toy-a1"]) == 1
        assert "traceback" not in operator.log()
    finally:
        operator.stop()


def _submitted(space: Space) -> bool:
    try:
        space.submit(manifest("toy", space.name))
    except ApiError as error:
        assert error.status == 404, error
        return False
    return True
