"""The operator is there first: our kind and KubeRay come later, and both are seen without a restart."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.control_plane.harness.manifests import toy
from tests.control_plane.harness.operator import Operator
from tests.control_plane.harness.plane import ControlPlane, make_namespace
from tests.control_plane.harness.world import World

NAMESPACE = "late"


@pytest.fixture
def empty(kit_is_there: None, tmp_path: Path) -> Iterator[ControlPlane]:
    """A control plane of its own, without our kind and without KubeRay."""
    (tmp_path / "plane").mkdir()
    found = ControlPlane(tmp_path / "plane", kuberay=False, ours=False)
    try:
        found.start_kwok()
        yield found
    finally:
        found.down()


def test_kinds_that_come_after_the_operator(empty: ControlPlane, tmp_path: Path) -> None:
    operator = Operator(empty)
    operator.wait_healthy()
    assert "does not serve" in operator.log_file.read_text()
    empty.install()
    log = tmp_path / "drivers.jsonl"
    empty.start_drivers(log)
    make_namespace(empty.api, NAMESPACE)
    empty.add_nodes(NAMESPACE, "cpu", 1)
    world = World(empty, NAMESPACE, log)
    world.seen.start()
    world.apply(toy("toy", NAMESPACE))
    world.wait_reason("toy", "ClusterReady", "KubeRayMissing")
    assert not world.status("toy").get("failures")
    begun = time.monotonic()
    empty.up("--kuberay")
    status = world.wait_phase("toy", "Succeeded", seconds=900)
    print(f"KubeRay installed later: succeeded {time.monotonic() - begun:.1f} s after its installation began")
    assert (status["attempt"], status["restartsUsed"]) == (1, 0)
    world.seen.stop()
    assert not world.seen.twice()
    world.check()
    world.clear()
    operator.stop()
    operator.check_log()
