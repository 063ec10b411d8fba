"""Fill one rollout batch: prompts by position, responses by seed, rewards, and dynamic sampling until the batch is full."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from lprl_api.derived.effective import prompts_per_round
from lprl_api.spec.algorithm import Sampling
from lprl_api.wire.runconfig import RunConfig
from lprl_workload.data import Completion, GenerationRequest, Metrics, Prompt, Sample, SamplingParams
from lprl_workload.metrics.metric import mean_std
from lprl_workload.metrics.reward_signal import SeenRewards, seen_rewards
from lprl_workload.process.movement import here
from lprl_workload.rollout.seeds import sample_seed

Generate = Callable[[Sequence[GenerationRequest], SamplingParams], list[Completion]]
Decode = Callable[[Sequence[int]], str]
Score = Callable[[Sequence[Prompt], Sequence[str]], list[float]]
"""Rewards of responses; prompts[i] is the one response i answers."""


class PromptSource(Protocol):
    """Prompts by position, shuffled per epoch; pure in its arguments (rollout/dataset.py)."""

    def __len__(self) -> int:
        """Rows of one epoch."""

    def take(self, position: int, count: int) -> tuple[list[Prompt], int]:
        """Return `count` prompts from `position` on, and the position after them."""


@dataclass(frozen=True, slots=True)
class Collected:
    """One rollout batch."""

    samples: tuple[Sample, ...]
    """rollout_batch_size x samples_per_prompt, group by group."""
    position: int
    """Data position after it."""
    metrics: Metrics
    """reward, reward_std, response_tokens (mean length), truncated_fraction: over everything generated, before the group filter."""
    generated_tokens: int
    seen: SeenRewards
    """Rewards over everything generated, before the group filter."""


def params_of(sampling: Sampling) -> SamplingParams:
    """Return the engine's parameters."""
    stops = sampling.stop, sampling.stop_token_ids
    return SamplingParams(sampling.temperature, sampling.top_p, sampling.top_k, sampling.max_response_tokens, *stops)


def requests_for(prompts: Sequence[Prompt], count: int, run_seed: int, step: int, seen: Counter[int]) -> list[GenerationRequest]:
    """Return `count` requests a prompt. A prompt met again in the same step (`seen`) gets fresh seeds."""
    requests = []
    for prompt in prompts:
        first = seen[prompt.index] * count
        seen[prompt.index] += 1
        requests += [GenerationRequest(prompt.token_ids, sample_seed(run_seed, step, prompt.index, first + n)) for n in range(count)]
    return requests


class Collector:
    """Makes rollout batches; pure in (step, position) given the weights."""

    def __init__(self, run: RunConfig, dataset: PromptSource, score: Score, decode: Decode) -> None:
        self._run, self._dataset, self._score, self._decode = run, dataset, score, decode
        self._params = params_of(run.sampling)

    def collect(self, step: int, position: int, generate: Generate) -> Collected:
        """Return the batch of `step`, taking prompts from `position` on."""
        algorithm = self._run.algorithm
        wanted, dynamic = algorithm.rollout_batch_size, algorithm.dynamic_sampling
        size = prompts_per_round(algorithm)
        kept: list[list[Sample]] = []
        flat: list[list[Sample]] = []
        seen: Counter[int] = Counter()
        answered: list[tuple[Prompt, list[Sample]]] = []
        for _ in range(dynamic.max_rounds if dynamic.enabled else 1):
            prompts, position = self._dataset.take(position, size)
            requests = requests_for(prompts, algorithm.samples_per_prompt, algorithm.seed, step, seen)
            groups = self.score(prompts, generate(requests, self._params), algorithm.samples_per_prompt)
            answered += zip(prompts, groups, strict=True)
            for group in groups:
                informative = not dynamic.enabled or len({sample.reward for sample in group}) > 1
                (kept if informative else flat).append(group)
            if len(kept) >= wanted:
                break
        # Too few informative groups after max_rounds: filled with what there is, oldest first.
        batch = (kept + flat)[:wanted]
        everything = [sample for group in kept + flat for sample in group]
        samples = tuple(replace(sample, group=number) for number, group in enumerate(batch) for sample in group)
        rewards = seen_rewards([prompt for prompt, _ in answered], [group for _, group in answered])
        return Collected(samples, position, _metrics(everything), sum(len(s.response_ids) for s in everything), rewards)

    def score(self, prompts: Sequence[Prompt], completions: Sequence[Completion], count: int) -> list[list[Sample]]:
        """Return one group of `count` scored samples a prompt."""
        texts = [self._decode(completion.response_ids) for completion in completions]
        owners = [prompt for prompt in prompts for _ in range(count)]
        here.begin("rewards", len(owners), "responses")
        rewards = self._score(owners, texts)
        samples = [
            _sample(prompt, number // count, number % count, completions[number], rewards[number], texts[number])
            for number, prompt in enumerate(owners)
        ]
        return [samples[first : first + count] for first in range(0, len(samples), count)]


def _sample(prompt: Prompt, group: int, number: int, completion: Completion, reward: float, text: str) -> Sample:
    return Sample(
        prompt_index=prompt.index,
        group=group,
        sample=number,
        prompt_ids=prompt.token_ids,
        response_ids=completion.response_ids,
        rollout_logprobs=completion.logprobs,
        reward=reward,
        finish=completion.finish,
        version_first=completion.version_first,
        version_last=completion.version_last,
        text=text,
    )


def _metrics(samples: Sequence[Sample]) -> Metrics:
    reward, reward_std = mean_std([sample.reward for sample in samples])
    length, _ = mean_std([float(len(sample.response_ids)) for sample in samples])
    truncated, _ = mean_std([float(sample.finish == "length") for sample in samples])
    return {"reward": reward, "reward_std": reward_std, "response_tokens": length, "truncated_fraction": truncated}
