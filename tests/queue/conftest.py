"""Fixtures of the tests under a real Kueue: the harness of tests/control_plane on a control plane that has one."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.control_plane.conftest import kit_is_there, make_world
from tests.control_plane.harness.operator import Operator
from tests.control_plane.harness.plane import ControlPlane, kit, started

__all__ = ["kit_is_there", "make_world"]

PREPARING = {"conversionCpu": "1", "conversionMemory": "1Gi"}
"""Inspections and conversions take a third of what the training of a small job takes."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here needs a control plane."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.cluster)
            item.add_marker(pytest.mark.slow)


def settings_of(folder: Path, more: str) -> dict[str, str]:
    """Environment of the kit for a Kueue with more settings than it has by default; they are written into a folder."""
    found, settings = kit(), folder / "kueue.yaml"
    assert found is not None
    settings.write_text((found / "manifests" / "kueue-config.yaml").read_text() + more + "\n")
    return {"LPRL_KUEUE_CONFIG": str(settings)}


@pytest.fixture(scope="module")
def kueue_settings() -> dict[str, str]:
    """Environment of the kit: the settings that Kueue has by default."""
    return {}


@pytest.fixture(scope="module")
def plane(kit_is_there: None, kueue_settings: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane with KubeRay, Kueue and kwok."""
    with started(ControlPlane(tmp_path_factory.mktemp("plane"), flags=("--kueue",), **kueue_settings)) as found:
        yield found


@pytest.fixture(scope="module")
def driver_log(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the simulated drivers did."""
    found = tmp_path_factory.mktemp("drivers") / "drivers.jsonl"
    plane.start_drivers(found)
    return found


@pytest.fixture(scope="module")
def operator(plane: ControlPlane) -> Iterator[Operator]:
    """One operator for all."""
    found = Operator(plane, resources=PREPARING)
    found.wait_healthy()
    yield found
    found.stop()
    found.check_log()
