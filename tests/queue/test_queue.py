"""The scenarios under one Kueue with the settings it has by default, each in a namespace with a ClusterQueue of its own."""

from collections.abc import Callable
from functools import partial

from tests.control_plane.harness.operator import Operator
from tests.control_plane.harness.together import apart, side_by_side
from tests.control_plane.harness.world import World
from tests.queue import administrators, beside, lost, quota, racks, topology

QUOTA = (quota.basic, quota.default_queue, quota.restarted, quota.preempted, quota.suspended, quota.corrected, quota.reclaimed)
ADMINISTRATORS = (
    administrators.never,
    administrators.deactivated,
    administrators.drained,
    administrators.limited,
    administrators.busy,
    administrators.converting,
    administrators.shared,
    administrators.one_after_the_other,
)
LOST = (lost.head_deleted, lost.trainer_lost, lost.worker_deleted, lost.drained, lost.cluster_deleted)
BESIDE = (beside.first_come, beside.preempted, beside.preempted_job)


def test_who_keeps_the_quota_and_who_gives_it(operator: Operator, make_world: Callable[..., World]) -> None:
    apart(make_world, {s.__name__: s for s in QUOTA})


def test_what_an_administrator_says_holds(operator: Operator, make_world: Callable[..., World]) -> None:
    apart(make_world, {s.__name__: s for s in ADMINISTRATORS})


def test_what_is_lost_keeps_its_quota(operator: Operator, make_world: Callable[..., World]) -> None:
    apart(make_world, {s.__name__: s for s in LOST})


def test_the_order_is_that_of_a_rayjob_beside_it(operator: Operator, make_world: Callable[..., World]) -> None:
    apart(make_world, {s.__name__: s for s in BESIDE})


def test_a_required_level_is_kept_or_refused_in_kueues_words(operator: Operator, make_world: Callable[..., World]) -> None:
    small = partial(topology.required_rack, make_world(gpu_nodes=topology.NODES, cpu_nodes=2))
    large = partial(racks.large_preset, make_world(gpu_nodes=racks.NODES, cpu_nodes=3))
    side_by_side({"required_rack": small, "large_preset": large})
