"""Fixtures of the control-plane tests: one control plane a session, an operator a module, a namespace with nodes a test."""

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.control_plane.harness.operator import Operator
from tests.control_plane.harness.plane import ENV_DEVCLUSTER, ENV_KEEP, ControlPlane, kit, make_namespace, remove_namespace, started
from tests.control_plane.harness.world import World

MakeOperator = Callable[..., Operator]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here needs a control plane."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.cluster)
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def kit_is_there() -> None:
    """Skip where no control plane can be had."""
    if kit() is None:
        pytest.skip(f"no control plane: set {ENV_DEVCLUSTER} to a folder with up.sh and down.sh (kwok and KubeRay come with it)")


@pytest.fixture(scope="session")
def plane(kit_is_there: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane with KubeRay and kwok."""
    keep = os.environ.get(ENV_KEEP)
    with started(ControlPlane(Path(keep) if keep else tmp_path_factory.mktemp("plane"), keep=bool(keep))) as found:
        yield found


@pytest.fixture(scope="session")
def driver_log(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the simulated drivers did."""
    found = tmp_path_factory.mktemp("drivers") / "drivers.jsonl"
    plane.start_drivers(found)
    return found


@pytest.fixture(scope="module")
def operator(plane: ControlPlane) -> Iterator[Operator]:
    """One operator for the tests of a module that leave it alone."""
    found = Operator(plane)
    found.wait_healthy()
    yield found
    found.stop()
    found.check_log()


@pytest.fixture
def make_operator(plane: ControlPlane) -> Iterator[MakeOperator]:
    """Start operators that end with the test."""
    made: list[Operator] = []

    def make(name: str = "operator-0", wait: bool = True, **settings: Any) -> Operator:
        made.append(Operator(plane, name, **settings))
        if wait:
            made[-1].wait_healthy()
        return made[-1]

    yield make
    for found in made:
        found.stop()
    for found in made:
        found.check_log()


@pytest.fixture
def make_world(plane: ControlPlane, driver_log: Path) -> Iterator[Callable[..., World]]:
    """Make namespaces with a CPU node (and GPU nodes) of their own.

    Afterwards everything in them is checked (harness/proof.py), deleted, and must be gone.
    """
    made: list[World] = []

    def make(gpu_nodes: int = 0, cpu_nodes: int = 1) -> World:
        namespace = f"t-{uuid.uuid4().hex[:8]}"
        make_namespace(plane.api, namespace)
        made.append(World(plane, namespace, driver_log))
        made[-1].seen.start()
        plane.add_nodes(namespace, "cpu", cpu_nodes)
        plane.add_gpu_nodes(namespace, gpu_nodes)
        return made[-1]

    yield make
    try:
        for world in made:
            world.seen.stop()
            world.check()
        for world in made:
            world.delete_all()
        for world in made:
            world.clear()
    finally:
        for world in made:
            world.delete_all()
            remove_namespace(plane.api, world.namespace)
            plane.remove_nodes(world.namespace)


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    """One namespace with one CPU node."""
    return make_world()
