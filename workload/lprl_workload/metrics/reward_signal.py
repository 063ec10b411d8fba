"""Whether the rewards of a run's first steps differ: the state in every checkpoint, and samples as the scorer saw them (pure)."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from lprl_api.wire.progress import RewardSample, RewardSignal
from lprl_workload.data import Prompt
from lprl_workload.episode import EpisodeRef

FIRST_STEPS = 3
"""Steps whose rewards may all be equal by chance."""
SAMPLES = 3
PROMPT_BYTES, RESPONSE_BYTES, LABEL_BYTES = 150, 240, 100
"""Of one sample's texts in JSON: three samples go into a termination message of 4096 bytes with the rest of Progress."""


@dataclass(frozen=True, slots=True)
class SeenRewards:
    """The rewards of a step, over everything generated."""

    low: float
    high: float
    responses: int
    samples: tuple[RewardSample, ...]


def seen_rewards(prompts: Sequence[Prompt], groups: Sequence[Sequence[EpisodeRef]]) -> SeenRewards:
    """Return what a step's rewards were, with samples of its first, middle and last prompt; groups[i] answers prompts[i]."""
    rewards = [sample.reward for group in groups for sample in group]
    places = sorted({0, len(groups) // 2, len(groups) - 1})[:SAMPLES]
    shown = tuple(_shown(prompts[place], groups[place][0]) for place in places)
    return SeenRewards(min(rewards), max(rewards), len(rewards), shown)


def watch(signal: RewardSignal, seen: SeenRewards, last: bool) -> RewardSignal:
    """Return the signal after a step: varied for good once two rewards differ, else a verdict after FIRST_STEPS or the `last` step."""
    if signal.state == "varied":
        return signal
    steps, responses = signal.steps + 1, signal.responses + seen.responses
    if seen.low != seen.high or signal.value not in (None, seen.low):
        return RewardSignal(state="varied", steps=steps, responses=responses)
    decided = last or steps >= FIRST_STEPS
    state = "measuring" if not decided else "all-zero" if seen.low == 0 else "all-equal"
    samples = signal.samples or seen.samples
    return RewardSignal(state=state, value=seen.low, steps=steps, responses=responses, samples=samples)


def told(samples: Sequence[RewardSample]) -> list[str]:
    """Return samples as lines of a log."""
    return [f"prompt ...{s.prompt!r}, response {s.response!r}, label {s.label!r}: reward {s.reward:g}" for s in samples]


def excerpt(text: str) -> str:
    """Return what is shown of a response."""
    return fitted(text, RESPONSE_BYTES, head=0.3)


def _shown(prompt: Prompt, sample: EpisodeRef) -> RewardSample:
    label = " | ".join(prompt.label) if isinstance(prompt.label, tuple) else prompt.label or ""
    return RewardSample(
        prompt=fitted(prompt.text, PROMPT_BYTES, head=0.0),
        response=excerpt(sample.excerpt),
        label=fitted(label, LABEL_BYTES, head=1.0),
        reward=sample.reward,
    )


def fitted(text: str, limit: int, head: float) -> str:
    """Return a text whose JSON has at most `limit` bytes: a share `head` of it from its beginning, the rest from its end."""
    text = text.encode(errors="backslashreplace").decode()
    if _size(text) <= limit:
        return text
    keep = limit
    while True:
        first = int(keep * head)
        short = f"{text[:first]}...{text[len(text) - (keep - first) :]}" if head else text[-keep:]
        if _size(short) <= limit:
            return short
        keep = keep * 9 // 10


def _size(text: str) -> int:
    return len(json.dumps(text, ensure_ascii=False).encode()) - 2
