"""A job deleted at any time leaves nothing behind; a conversion others want goes on."""

import time
from collections.abc import Callable
from typing import Any

from tests.control_plane.harness.manifests import SHAPE, annotations, inspection, merged, toy
from tests.control_plane.harness.operator import Operator
from tests.control_plane.harness.together import apart
from tests.control_plane.harness.world import World

PHASES = ("inspecting", "converting", "finalising", "provisioning", "running", "restarting", "suspended", "succeeded", "failed")


def submit_one_per_phase(world: World) -> None:
    """Jobs that stay in the phase they are named after, each with a source of its own."""
    hold = {"inspecting": "inspect_hold", "converting": "convert_hold", "finalising": "finalise_hold"}
    crash = {"crash": {"attempts": [1], "step": 1, "code": 1}}
    drivers: dict[str, dict[str, Any]] = {
        "running": {"hold_at": 1},
        "restarting": crash,
        "failed": {"crash": {"attempts": [1], "step": 1, "code": 3}},
    }
    for number, name in enumerate(PHASES):
        sim = annotations(inspection(SHAPE, f"{number:02x}" * 32), drivers.get(name), **({hold[name]: "yes"} if name in hold else {}))
        if name == "provisioning":
            sim = merged(sim, {"workers": {"schedulingGates": ["test/held"]}})
        more = {"failurePolicy": {"backoffSeconds": 600}} if name == "restarting" else {}
        world.apply(toy(name, world.namespace, sim=sim, steps=2, suspend=name == "suspended", **more))
    for name in PHASES:
        world.wait_phase(name, "Converting" if name == "finalising" else name.capitalize())
    world.wait("finalise Job of `finalising`", lambda: [p for p in world.pods("finalise") if p["status"]["phase"] == "Running"])


def deleted_in_every_phase(world: World) -> None:
    submit_one_per_phase(world)
    begun = time.monotonic()
    for name in PHASES:
        world.api.delete("LowPrecisionRLJob", world.namespace, name)
    world.wait("nothing left", lambda: not world.orphans(), seconds=900)
    print(f"{len(PHASES)} jobs deleted, one in every phase: nothing of them is left after {time.monotonic() - begun:.1f} s")
    assert not world.api.list("LowPrecisionRLJob", world.namespace)


def made_again_under_the_same_name_at_once(world: World) -> None:
    """Children of the earlier job are never taken for those of the new one."""
    world.apply(toy("toy", world.namespace, {"hold_at": 1}))
    world.wait_phase("toy", "Running")
    first = world.job("toy")["metadata"]["uid"]
    world.api.delete("LowPrecisionRLJob", world.namespace, "toy")
    world.apply(toy("toy", world.namespace, steps=3))
    status = world.wait_phase("toy", "Succeeded", seconds=900)
    assert status["attempt"] == 1
    assert status["training"]["summary"] == "3/3"
    starts = world.driver_log("toy", "start")
    assert [s["attempt"] for s in starts] == [1, 1]
    assert starts[0]["job_uid"] == first != starts[1]["job_uid"]


def a_shared_conversion_outlives_the_job_that_began_it(world: World) -> None:
    sim = annotations(inspection(SHAPE), {}, convert_hold="yes")
    for name in ("first", "second", "third"):
        world.apply(toy(name, world.namespace, sim=sim))
        world.wait_phase(name, "Converting")
    world.wait("three owners", lambda: [len(j["metadata"]["ownerReferences"]) for j in world.of("Job", "lprl.dev/role=convert")] == [3])
    world.api.delete("LowPrecisionRLJob", world.namespace, "first")
    world.patch("second", suspend=True)
    world.wait_phase("second", "Suspended")
    world.release("convert")
    assert world.wait_phase("third", "Succeeded")["conversion"]["progress"] == "2/2"
    # It had no part in what was finished meanwhile: the conversion is run again, which checks it (all shards are found done).
    world.patch("second", suspend=False)
    world.wait("pods that check it", lambda: [p for p in world.pods("convert") if p["status"]["phase"] == "Running"])
    world.release("convert")
    world.wait_phase("second", "Succeeded")
    made = [n for n in world.seen.uids if n.startswith("Job lprl-")]
    assert sorted(n.split("-")[1] for n in made) == ["convert", "finalise"]
    for name in ("second", "third"):
        world.api.delete("LowPrecisionRLJob", world.namespace, name)
    world.wait("nothing left", lambda: not world.orphans(), seconds=900)


def test_deleted_at_any_time(operator: Operator, make_world: Callable[[], World]) -> None:
    apart(
        make_world,
        {
            "every-phase": deleted_in_every_phase,
            "same-name": made_again_under_the_same_name_at_once,
            "shared-conversion": a_shared_conversion_outlives_the_job_that_began_it,
        },
    )
