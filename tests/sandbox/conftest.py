"""Fixtures of the tests under the real agent-sandbox: the harness of tests/control_plane on a control plane that has its controller."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.control_plane.conftest import driver_log, kit_is_there, make_world, operator, world
from tests.control_plane.harness.plane import ControlPlane, started

__all__ = ["driver_log", "kit_is_there", "make_world", "operator", "world"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here needs a control plane."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.cluster)
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def plane(kit_is_there: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane with KubeRay, agent-sandbox and kwok."""
    with started(ControlPlane(tmp_path_factory.mktemp("plane"), flags=("--sandbox",))) as found:
        yield found
