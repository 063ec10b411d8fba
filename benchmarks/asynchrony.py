"""Training while the next batches are generated against taking turns: the same run with staleness 0, 1 and 4, three seeds each.

Both sides run in this process, on a model small enough that arithmetic costs little; a stated latency stands for the rest: every token
of an engine takes TOKEN_S, whatever it works at, and training a batch as long as generating one. Bars: the same reward in the same
number of steps within noise, wall time at least 1.6 times shorter, no sample older than allowed, and every prompt trained on once.
"""

import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lprl_api.names import ENV_VOLUMES_ROOT
from lprl_api.wire.progress import Progress
from lprl_api.wire.runconfig import RunConfig
from lprl_fixtures.runs import run_config, write_inputs
from lprl_workload.config import ResolvedPaths
from lprl_workload.launch.build import assemble, local_groups
from lprl_workload.metrics.progress import Reporter

STEPS, TOKENS, TOKEN_S, LAST = 100, 8, 0.06, 15
ALLOWED, SEEDS = (0, 1, 4), (0, 1, 2)
LEAST_RATIO = 1.6


@dataclass(frozen=True, slots=True)
class Result:
    """One run."""

    seconds: float
    first: float
    """Mean reward of the first five steps."""
    last: float
    """Mean reward of the last LAST steps."""
    oldest: float
    trainer_idle: float
    engines_idle: float
    """Shares of the wall time."""


def slowed(run: RunConfig, paths: ResolvedPaths) -> Any:
    """Return groups of this process with the stated latencies."""
    trainer, rollout = local_groups(run, paths)
    scheduler = rollout.engines[0]._worker.scheduler  # type: ignore[attr-defined]
    step, train = scheduler.step, trainer.train

    def slow_step() -> Any:
        time.sleep(TOKEN_S)
        return step()

    def slow_train(update: Any, number: int) -> Any:
        time.sleep(TOKENS * TOKEN_S)
        return train(update, number)

    scheduler.step, trainer.train = slow_step, slow_train  # type: ignore[method-assign]
    return trainer, rollout


def one(root: Path, allowed: int, seed: int) -> Result:
    """Run once."""
    name = f"s{allowed}-{seed}"
    changes: dict[str, Any] = {
        "job_name": name,
        "algorithm": {
            "steps": STEPS,
            "seed": seed,
            "max_staleness": allowed,
            "rollout_batch_size": 8,
            "samples_per_prompt": 8,
            "global_batch_size": 64,
            "correction": {"type": "tis"},
        },
        "sampling": {"max_response_tokens": TOKENS},
        "evaluation": None,
        "ranks": {"placement": "split", "nodes": 2, "rollout_nodes": 1},
        "checkpoint": {"directory": {"volume": "all", "path": f"runs/{name}"}, "every_steps": STEPS, "export_formats": []},
    }
    run = run_config(root, changes)
    reporter = Reporter(None, Progress(attempt=1, sequence=0, phase="starting", step=0, steps=STEPS), 60.0)
    made = assemble(run, ResolvedPaths.of(run), 1, reporter, slowed)
    before = time.perf_counter()
    made.loop.run(lambda: False)
    seconds = time.perf_counter() - before
    rows = made.records.metrics.rows()
    made.close()
    reporter.close()
    spans = [(row["prompts_from"], row["prompts_to"]) for row in rows]
    assert spans == [(8 * n, 8 * n + 8) for n in range(STEPS)], "a prompt was lost, or trained twice"
    rewards = [row["reward"] for row in rows]
    whole = sum(row["step_seconds"] for row in rows)
    idle = [sum(row[f"{side}_idle_seconds"] for row in rows) / whole for side in ("trainer", "engines")]
    oldest = max(row["staleness_max"] for row in rows)
    return Result(seconds, statistics.fmean(rewards[:5]), statistics.fmean(rewards[-LAST:]), oldest, idle[0], idle[1])


def main() -> int:
    """Print a table, and which bars are missed."""
    found: dict[int, list[Result]] = {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ[ENV_VOLUMES_ROOT] = folder
        write_inputs(Path(folder))
        for seed in SEEDS:
            for allowed in ALLOWED:  # in turn, so that a busy minute of the machine hits all
                found.setdefault(allowed, []).append(one(Path(folder), allowed, seed))
    print(f"{STEPS} steps, {len(SEEDS)} seeds, {TOKENS} tokens of {TOKEN_S * 1000:g} ms, training {TOKENS * TOKEN_S:g} s a step")
    print("staleness  seconds  ratio  reward first -> last (each seed)               oldest  trainer idle  engines idle")
    turns = statistics.fmean(result.seconds for result in found[0])
    missed = []
    rewards = {allowed: [result.last for result in results] for allowed, results in found.items()}
    noise = max(0.02, 2 * max(statistics.stdev(values) for values in rewards.values()))
    for allowed, results in found.items():
        seconds = statistics.fmean(result.seconds for result in results)
        told = ", ".join(f"{result.first:.2f} -> {result.last:.3f}" for result in results)
        oldest, ratio = max(result.oldest for result in results), turns / seconds
        idle = [statistics.fmean(getattr(result, side) for result in results) for side in ("trainer_idle", "engines_idle")]
        print(f"{allowed:9}  {seconds:7.1f}  {ratio:5.2f}  {told:46}  {oldest:6g}  {idle[0]:12.0%}  {idle[1]:12.0%}")
        apart = abs(statistics.fmean(rewards[allowed]) - statistics.fmean(rewards[0]))
        missed += [f"staleness {allowed}: reward {apart:.3f} from that of 0, noise is {noise:.3f}"] if apart > noise else []
        missed += [f"staleness {allowed}: a sample is {oldest:g} steps old"] if oldest > allowed else []
        missed += [f"staleness {allowed}: {ratio:.2f} times shorter, needs {LEAST_RATIO}"] if allowed and ratio < LEAST_RATIO else []
    print("\n".join(missed) or f"every bar is met (rewards agree within {noise:.3f})")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
