"""Trainer and engines that share devices take turns, in the order and with the parts that plans count with."""

from collections.abc import Callable
from typing import Any

import pytest

from lprl_api.catalog.presets import preset_manifest
from lprl_api.derived.residency import RESIDENT
from lprl_api.rules.parse import parse_job
from lprl_operator.plan.memory import PARTS
from lprl_operator.plan.plan import make_plan
from lprl_operator.plan.types import JobPlan
from lprl_workload.process.errors import EngineLostError, TrainerLostError

Make = Callable[..., Any]
SHARED = {"ranks": {"accelerator": "H100-80GB"}}
GUARDED = SHARED | {"algorithm": {"global_batch_size": None, "steps": 12}, "evaluation": None}


def never() -> bool:
    return False


def drifting(step: int) -> float:
    return 3.0 if step >= 9 else 0.001


def up(world: Any) -> set[tuple[str, str]]:
    return {("trainer", part) for part in world.trainer_up} | {("engine", part) for part in world.engine_up}


def watched(world: Any) -> list[tuple[str, set[tuple[str, str]]]]:
    """Note, at each call, which parts lie on the devices."""
    seen: list[tuple[str, set[tuple[str, str]]]] = []
    note = world.note

    def look(what: str) -> None:
        seen.append((what.split()[0], up(world)))
        note(what)

    world.note = look
    return seen


PHASE = {"logprobs": "training", "reference": "training", "moments": "training", "train": "training", "push": "sync", "generate": "rollout"}


def planned(backends: dict[str, str]) -> JobPlan:
    document = preset_manifest("qwen3-4b-fp8")
    keep = {key: document["spec"][key] for key in ("model", "conversion", "data", "checkpoint", "volumes")}
    topology = {"accelerator": "H100-80GB", "placement": "colocated", "gpusPerNode": 8}
    more = {"algorithm": {"steps": 3, "rolloutBatchSize": 8}, "sampling": {"maxResponseTokens": 64}, "backends": backends}
    return make_plan(parse_job({**document, "spec": {**keep, **more, "topology": topology}}).spec)


@pytest.mark.parametrize("backends", [{}, {"trainer": "megatron", "rollout": "sglang"}], ids=["torch", "megatron-sglang"])
def test_the_loop_moves_what_plans_count(bench: Make, new_world: Make, backends: dict[str, str]) -> None:
    """Of each phase the plan's causes name the parts; the loop has these very parts on the devices when it does what the phase is for."""
    phases = {phase.name: {PARTS[item.cause] for item in phase.items if item.cause in PARTS} for phase in planned(backends).gpus[0].phases}
    world = new_world()
    seen = watched(world)
    assert bench(SHARED).attempt(1, world)[0].run(never) == "finished"
    found = [(PHASE[call], parts) for call, parts in seen if call in PHASE]
    order = [phase for n, (phase, _) in enumerate(found) if n == 0 or found[n - 1][0] != phase]
    assert order == ["sync", "rollout", *list(phases) * 7], "the first push, then the plan's phases in the plan's order, seven steps"
    known = set().union(*phases.values())  # without KL there is no reference
    for phase, parts in found:
        resident = RESIDENT[phase]
        assert parts == {("trainer", p) for p in resident.trainer} | {("engine", p) for p in resident.engine}, phase
        assert phases[phase] == parts & known, phase


def test_what_leaves_leaves_before_anything_comes(bench: Make, new_world: Make) -> None:
    world = new_world()
    bench(SHARED | {"algorithm": {"steps": 1}, "evaluation": None}).attempt(1, world)[0].run(never)
    assert world.moves == [
        *("trainer sleeps optimizer reference", "engines wake weights"),  # the first push
        *("trainer sleeps weights", "engines wake kv"),
        *("engines sleep kv weights", "trainer wakes optimizer reference weights"),
        *("trainer sleeps optimizer reference", "engines wake weights"),
        *("trainer sleeps weights", "engines wake kv"),
        *("engines sleep kv", "trainer wakes weights"),  # the model folder of the last checkpoint
        *("trainer sleeps weights", "engines wake kv"),
    ]


def test_engines_are_probed_when_the_trainer_has_left(bench: Make, new_world: Make) -> None:
    """A probe needs the KV cache: woken beside the trainer's weights it takes what no phase of a plan counts (measured on an H200)."""
    world, seen = new_world(), list[set[tuple[str, str]]]()
    loop, _, _, engines = bench(SHARED | {"algorithm": {"steps": 1}, "evaluation": None}).attempt(1, world)
    probe = engines.probe

    def look(ids: Any) -> Any:
        seen.append(up(world))
        return probe(ids)

    engines.probe = look
    assert loop.run(never) == "finished"
    assert seen == [{("engine", "weights"), ("engine", "kv")}]


@pytest.mark.parametrize("changes", [{}, {"ranks": {"accelerator": "H100-80GB", "placement": "split"}}], ids=["cpu", "split"])
def test_who_shares_nothing_stays(bench: Make, new_world: Make, changes: dict[str, Any]) -> None:
    world = new_world()
    bench(changes).attempt(1, world)[0].run(never)
    assert world.moves == []


@pytest.mark.parametrize("where", ["generate", "push", "train", "save", "load"])
def test_a_loss_leaves_the_devices_to_whom_they_belong(bench: Make, new_world: Make, where: str) -> None:
    """The stand-ins refuse every call for which a part is missing, or too much is there."""
    want = bench(SHARED, "whole")
    want.attempt(1, new_world())[0].run(never)
    run, world = bench(SHARED, "cut"), new_world()
    note = world.note

    def late(what: str) -> None:
        if len(world.journal) == 25:
            lost = EngineLostError(0, "killed") if where == "generate" else TrainerLostError("killed")
            world.faults["train" if where == "load" else where] = [lost]
            world.faults |= {"load": [TrainerLostError("again")]} if where == "load" else {}
        note(what)

    world.note = late
    assert run.attempt(1, world)[0].run(never) == "finished"
    assert "replace" in world.journal or "rebuild" in world.journal
    assert run.series() == want.series()


@pytest.mark.parametrize("action", ["rollback", "fallback-bf16"])
def test_the_guards_actions_take_turns_too(bench: Make, new_world: Make, action: str) -> None:
    run = bench(GUARDED | {"stability": {"action": action}})
    loop, world, _, _ = run.attempt(1, new_world(k3=drifting))
    seen = watched(world)
    assert loop.run(never) == "finished"
    for call, parts in seen:
        if call == "load":
            assert ("engine", "weights") not in parts and ("trainer", "optimizer") in parts
    loop, _, _, _ = run.attempt(2, new_world(k3=drifting))
    assert loop.run(never) == "finished"
