"""Kueue as administrators set it up: fair sharing, and finished Workloads deleted. At the end it is killed, and comes back."""

from collections.abc import Callable

import pytest
from tests.control_plane.harness.operator import Operator
from tests.control_plane.harness.plane import ControlPlane
from tests.control_plane.harness.together import apart
from tests.control_plane.harness.world import World
from tests.queue import cleaning, outages, teams
from tests.queue.conftest import settings_of

SETTINGS = """
fairSharing: {preemptionStrategies: [LessThanOrEqualToFinalShare, LessThanInitialShare]}
objectRetentionPolicies: {workloads: {afterFinished: 3s}}
"""
SCENARIOS = (teams.independent, teams.weighted, teams.whole, teams.moved, cleaning.finished, cleaning.by_hand, cleaning.preparing)


@pytest.fixture(scope="module")
def kueue_settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return settings_of(tmp_path_factory.mktemp("kueue"), SETTINGS)


def test_teams_share_and_workloads_go(operator: Operator, make_world: Callable[..., World]) -> None:
    apart(make_world, {s.__name__: s for s in SCENARIOS})


def test_an_outage_of_kueue_is_waited_out(operator: Operator, plane: ControlPlane, make_world: Callable[..., World]) -> None:
    outage = outages.Outage(plane, len(outages.SCENARIOS))
    apart(make_world, {s.__name__: outages.sharing(outage, s) for s in outages.SCENARIOS})
