"""Batches made ahead: what they are made of never changes, none is older than allowed, and what is given up is made anew."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from lprl_workload.process.errors import TrainerLostError

Make = Callable[..., Any]
LIMIT_S = 180.0
SPLIT: dict[str, Any] = {"ranks": {"placement": "split", "nodes": 2, "rollout_nodes": 1}, "evaluation": None}


def never() -> bool:
    return False


def ahead(allowed: int, **algorithm: Any) -> dict[str, Any]:
    return SPLIT | {"algorithm": algorithm | {"max_staleness": allowed}}


class Watched:
    """An attempt whose engines note what they are asked, and whose trainer can wait for what is generated beside it."""

    def __init__(self, run: Any, world: Any, number: int = 1) -> None:
        self.loop, self.world, self.trainer, self.engines = run.attempt(number, world)
        self.asked: list[list[tuple[int, int]]] = []
        """(prompt, seed) of every request, call by call."""
        self.threads: set[str] = set()
        self.changed = threading.Condition()
        generate = self.engines.generate

        def noted(requests: Sequence[Any], params: Any, keeper: Any) -> Any:
            with self.changed:  # the stand-in's answers follow from one state of its weights
                found = generate(requests, params, keeper)
                self.asked.append([(request.prompt, request.seed) for request in requests])
                self.threads.add(threading.current_thread().name)
                self.changed.notify_all()
            return found

        self.engines.generate = noted

    def wait_in_training(self, allowed: int, steps: int) -> None:
        """Have each step's training wait until all that may be made beside it is made."""
        train = self.trainer.train

        def waits(update: Any, step: int) -> Any:
            wanted = min(steps, self.loop.state.step + 1 + allowed)
            with self.changed:
                assert self.changed.wait_for(lambda: len(self.asked) >= wanted, LIMIT_S), "nothing is generated while the trainer works"
            return train(update, step)

        self.trainer.train = waits


def tiled(rows: list[dict[str, Any]], each: int = 3) -> bool:
    """Whether every step is there once, and each used up the prompts behind those of the one before."""
    steps = [(row["step"], row["prompts_from"], row["prompts_to"]) for row in rows]
    return steps == [(n + 1, n * each, (n + 1) * each) for n in range(len(rows))]


@pytest.mark.parametrize("allowed", [1, 3])
def test_batches_are_made_while_the_trainer_works_of_the_prompts_and_seeds_of_a_run_that_takes_turns(
    bench: Make, new_world: Make, allowed: int
) -> None:
    plain = Watched(bench(ahead(0), "plain"), new_world())
    plain.loop.run(never)
    run = bench(ahead(allowed))
    watched = Watched(run, new_world())
    watched.wait_in_training(allowed, 7)
    assert watched.loop.run(never) == "finished"
    assert sorted(watched.asked) == sorted(plain.asked)
    rows = run.series()
    assert tiled(rows)
    assert [row["staleness_max"] for row in rows] == [min(step, allowed) for step in range(7)]
    assert plain.threads == {threading.current_thread().name}, "without staleness nothing runs beside the loop"


def test_weights_are_pushed_into_open_requests_between_pause_and_resume(bench: Make, new_world: Make) -> None:
    run = bench(ahead(1, steps=2))
    watched = Watched(run, new_world())
    watched.loop.run(never)
    calls = [call for call in watched.world.journal if call.split()[0] in ("pause", "push", "resume")]
    assert calls == [call for version in range(3) for call in ("pause", f"push v{version}", "resume")]


def test_with_dynamic_sampling_batches_follow_each_other_and_use_the_same_prompts(bench: Make, new_world: Make) -> None:
    dynamic = {"dynamic_sampling": {"enabled": True, "max_rounds": 2}, "steps": 5}
    asked = []
    for allowed in (0, 2):
        run = bench(ahead(allowed, **dynamic), f"run-{allowed}")
        run.score = lambda prompts, texts: [float(place % 2) if prompt.index % 2 else 0.0 for place, prompt in enumerate(prompts)]
        watched = Watched(run, new_world())
        watched.loop.run(never)
        asked.append(sorted(watched.asked))
        rows = run.series()
        assert [row["prompts_from"] for row in rows[1:]] == [row["prompts_to"] for row in rows[:-1]]
        assert all(row["staleness_max"] <= allowed for row in rows)
    assert asked[0] == asked[1]


class KilledError(BaseException):
    """Stands for kill -9: nothing in the loop may catch it."""


@pytest.mark.parametrize("moment", range(1, 24, 3))
def test_killed_anywhere_no_prompt_is_lost_and_none_is_trained_twice(bench: Make, new_world: Make, moment: int) -> None:
    run = bench(ahead(2))
    world = new_world()
    note, trained = world.note, []

    def counted(what: str) -> None:
        note(what)
        if what.split()[0] in ("push", "train", "save", "logprobs"):
            trained.append(what)
            if len(trained) > moment:
                raise KilledError

    world.note = counted
    with pytest.raises(KilledError):
        Watched(run, world).loop.run(never)
    assert Watched(run, new_world(), 2).loop.run(never) == "finished"
    assert tiled(run.series()) and len(run.series()) == 7


def test_a_lost_trainer_drops_what_is_open_and_starts_again_from_the_checkpoint(bench: Make, new_world: Make) -> None:
    run = bench(ahead(2))
    watched = Watched(run, new_world())
    open_ones, aborted = threading.Event(), threading.Event()
    generate, train, abort = watched.engines.generate, watched.trainer.train, watched.engines.abort

    def stuck(requests: Sequence[Any], params: Any, keeper: Any) -> Any:
        if watched.loop.state.step == 3 and not aborted.is_set():
            open_ones.set()
            assert aborted.wait(LIMIT_S)
        return generate(requests, params, keeper)

    def lost(update: Any, step: int) -> Any:
        if watched.loop.state.step == 3 and not aborted.is_set():
            assert open_ones.wait(LIMIT_S)
            raise TrainerLostError("killed")
        return train(update, step)

    def abort_all() -> None:
        abort()
        aborted.set()

    watched.engines.generate, watched.trainer.train, watched.engines.abort = stuck, lost, abort_all
    assert watched.loop.run(never) == "finished"
    assert "abort" in watched.world.journal and watched.world.journal.count("rebuild") == 1
    assert tiled(run.series()) and len(run.series()) == 7
    assert all(row["staleness_max"] <= 2 for row in run.series())
    assert watched.loop._ahead.dropped >= 6, "at least one batch of six responses was open"


def test_rollback_gives_up_what_was_made_of_the_weights_it_leaves(bench: Make, new_world: Make) -> None:
    guard = {"stability": {"action": "rollback"}}
    run = bench(ahead(2, global_batch_size=None, steps=12) | guard)
    watched = Watched(run, new_world(k3=lambda step: 3.0 if step >= 9 else 0.001))
    assert watched.loop.run(never) == "finished"
    assert watched.loop.state.guard.state == "rolled-back"
    assert tiled(run.series()) and all(row["staleness_max"] <= 2 for row in run.series())


def test_a_suspended_run_leaves_no_thread_and_goes_on_from_its_position(bench: Make, new_world: Make) -> None:
    run = bench(ahead(3))
    score = run.score

    def slowly(prompts: Sequence[Any], texts: Sequence[str]) -> list[float]:
        time.sleep(0.1)
        return list(score(prompts, texts))

    run.score = slowly
    watched = Watched(run, new_world())
    assert watched.loop.run(lambda: watched.loop.state.step == 3) == "suspended"
    left = [thread.name for thread in threading.enumerate() if thread.name.startswith("lprl-step-")]
    assert not left, "a process that ends with what they hold of Ray ends with an error"
    assert Watched(run, new_world(), 2).loop.run(never) == "finished"
    assert tiled(run.series()) and len(run.series()) == 7


def test_what_a_collection_raises_ends_the_run(bench: Make, new_world: Make) -> None:
    run = bench(ahead(2))

    def broken(prompts: Sequence[Any], texts: Sequence[str]) -> list[float]:
        raise ValueError("the reward function broke")

    run.score = broken
    with pytest.raises(ValueError, match="the reward function broke"):
        Watched(run, new_world()).loop.run(never)


def test_a_collection_that_cannot_begin_the_next_one_ends_the_run(bench: Make, new_world: Make) -> None:
    """As when no thread can be started: the loop would wait for ever for a batch that is there."""
    watched = Watched(bench(ahead(2, dynamic_sampling={"enabled": True, "max_rounds": 2})), new_world())
    begin, own = watched.loop._ahead._begin, threading.current_thread()

    def only_here() -> None:
        if threading.current_thread() is not own:
            raise RuntimeError("can't start new thread")
        begin()

    watched.loop._ahead._begin = only_here
    with pytest.raises(RuntimeError, match="can't start new thread"):
        watched.loop.run(never)


def test_progress_tells_staleness_and_idle_shares(bench: Make, new_world: Make) -> None:
    watched = Watched(bench(ahead(1)), new_world())
    watched.wait_in_training(1, 7)
    watched.loop.run(never)
    told = watched.loop._reporter.progress
    assert (told.staleness, told.staleness_max, told.dropped_episodes) == (1.0, 1, 0)
    assert told.trainer_idle is not None and told.engines_idle is not None
