"""Rewards that are all equal: seen over the first steps of the run, told with samples that fit where they are told."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from lprl_api.names import TERMINATION_MESSAGE_BYTES
from lprl_api.wire.progress import Progress, RewardSignal, Termination
from lprl_workload.data import Prompt
from lprl_workload.episode import EpisodeRef, token_ids
from lprl_workload.metrics.reward_signal import SeenRewards, excerpt, seen_rewards, told, watch
from lprl_workload.process.termination import write_termination
from lprl_workload.rl.lost import report_of


def step(low: float, high: float | None = None) -> SeenRewards:
    return SeenRewards(low, low if high is None else high, 8, ())


@pytest.mark.parametrize(
    ("steps", "last", "state", "value"),
    [
        pytest.param([step(0)], False, "measuring", 0.0, id="one-step-may-be-chance"),
        pytest.param([step(0)] * 2, False, "measuring", 0.0, id="two-may-be-too"),
        pytest.param([step(0)] * 3, False, "all-zero", 0.0, id="three-are-told"),
        pytest.param([step(0)], True, "all-zero", 0.0, id="a-short-run-is-told-at-its-end"),
        pytest.param([step(-1)] * 3, False, "all-equal", -1.0, id="dapo"),
        pytest.param([step(1)] * 3, False, "all-equal", 1.0, id="all-right"),
        pytest.param([step(0, 1)], False, "varied", None, id="differ-within-a-step"),
        pytest.param([step(0), step(1)], False, "varied", None, id="differ-between-steps"),
        pytest.param([step(0)] * 9 + [step(0, 1)], False, "varied", None, id="begin-to-differ"),
        pytest.param([step(0, 1)] + [step(1)] * 9, True, "varied", None, id="once-they-did-it-stays-so"),
        pytest.param([step(0)] * 9, False, "all-zero", 0.0, id="goes-on"),
        pytest.param([step(-0.0), step(0.0), step(0)], False, "all-zero", 0.0, id="minus-zero"),
    ],
)
def test_the_signal_is_what_held_of_every_reward_so_far(steps: list[SeenRewards], last: bool, state: str, value: float | None) -> None:
    signal = RewardSignal()
    for place, seen in enumerate(steps):
        signal = watch(signal, seen, last=last and place == len(steps) - 1)
    assert (signal.state, signal.value) == (state, value)
    assert signal.steps == (1 if steps[0].low != steps[0].high else len(steps)) and signal.responses == 8 * signal.steps


def sample(text: str, reward: float = 0.0) -> EpisodeRef:
    return EpisodeRef(0, 0, 0, 1, 2, 1, 0, 0, "stop", reward=reward, excerpt=excerpt(text))


def test_samples_are_of_the_first_middle_and_last_prompt_and_of_the_first_step() -> None:
    prompts = [Prompt(n, f"p{n}", token_ids((n,)), (str(n), "x") if n == 2 else str(n) if n else None) for n in range(5)]
    seen = seen_rewards(prompts, [[sample(f"r{n}", n / 4), sample("other", 2.0)] for n in range(5)])
    assert (seen.low, seen.high, seen.responses) == (0.0, 2.0, 10)
    assert [(s.prompt, s.response, s.label, s.reward) for s in seen.samples] == [
        ("p0", "r0", "", 0.0), ("p2", "r2", "2 | x", 0.5), ("p4", "r4", "4", 1.0)
    ]  # fmt: skip
    equal = seen_rewards(prompts[:1], [[sample("r")]])
    signal = watch(RewardSignal(), equal, last=False)
    again = watch(signal, seen_rewards(prompts[1:2], [[sample("later")]]), last=True)
    assert again.samples == signal.samples == equal.samples and watch(again, seen, last=False).samples == ()
    assert told(equal.samples) == ["prompt ...'p0', response 'r', label '': reward 0"]


LONG = {
    "letters": "x" * 50_000,
    "characters-of-four-bytes": "\U0001f600" * 9_000,
    "control-characters": '\x01\n"\\' * 9_000,
    "surrogates": "\ud800" * 5_000,
}


@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
def test_samples_fit_into_a_termination_message_with_all_the_rest(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    end = "the question is at the end"
    seen = seen_rewards([Prompt(n, text + end, token_ids((1,)), text) for n in range(4)], [[sample(f"begins {text} ends")]] * 4)
    signal = watch(RewardSignal(), seen, last=True)
    assert len(signal.model_dump_json(by_alias=True).encode()) <= 2048
    assert all(s.prompt.endswith(end) and s.response.startswith("begins") and s.response.endswith("ends") for s in signal.samples)
    monkeypatch.setenv("LPRL_TERMINATION_LOG", str(tmp_path / "log"))
    progress = Progress(attempt=1, sequence=1, phase="stopping", step=9, steps=9, message="m" * 500, reward_signal=signal)
    failed = [replace(sample("x"), finish="failed", failure=f"{n} {text}") for n in range(9)]
    progress = progress.model_copy(update={"episodes": report_of(failed)})
    write_termination("UserError", "field: " + "y" * 5000 + " remedy", progress)
    raw = (tmp_path / "log").read_bytes()
    assert len(raw) <= TERMINATION_MESSAGE_BYTES
    found = Termination.model_validate_json(raw)
    assert (
        found.progress is not None
        and found.progress.reward_signal == signal
        and len(found.progress.episodes.failures) == 3
        and found.message.endswith("remedy")
    )
    assert json.loads(raw)["progress"]["rewardSignal"]["state"] == "all-zero"
