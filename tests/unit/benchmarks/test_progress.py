"""What a benchmark says while runs go on, and when it calls a reward risen."""

import json
from pathlib import Path

from benchmarks.real.run import rise
from benchmarks.training import RUN, progress, steps_of

from lprl_fixtures.runs import run_config, write_inputs


def row(step: int, reward: float, seconds: float = 30.0) -> dict[str, float]:
    return {"step": step, "reward": reward, "k3": 1e-11, "tokens_per_second": 12.0, "step_seconds": seconds}


def test_a_line_says_how_far_a_run_is_and_how_long_it_takes() -> None:
    assert progress([row(1, 0.1, 90.0), row(2, 0.2), row(3, 0.25)], 13) == "step 3/13 reward 0.25 k3 1.0e-11 12 tok/s, 5.0 min left"
    assert progress([row(13, 0.5)], 13).endswith("tok/s")


def test_the_steps_of_a_run_are_read_from_what_it_was_given(tmp_path: Path) -> None:
    write_inputs(tmp_path)
    run = run_config(tmp_path)
    (tmp_path / RUN).write_text(json.dumps(run.document()))
    assert steps_of(tmp_path) == run.algorithm.steps == 6


def test_a_rise_is_more_than_sampling_makes() -> None:
    noisy = [0.05, 0.08, 0.06, 0.05, 0.09, 0.07, 0.08]
    risen = [0.05, 0.08, 0.06, 0.10, 0.25, 0.30, 0.40]
    assert [rise("pair", [row(i, reward) for i, reward in enumerate(rewards)])[0] for rewards in (noisy, risen, risen[::-1])] == [
        False,
        True,
        False,
    ]
