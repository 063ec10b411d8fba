"""Fill one rollout batch: prompts by position, responses by seed, rewards, and dynamic sampling until the batch is full."""

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from lprl_api.derived.effective import prompts_per_round
from lprl_api.spec.algorithm import Sampling
from lprl_api.wire.progress import EpisodeReport
from lprl_api.wire.runconfig import RunConfig
from lprl_workload.data import GenerationRequest, Metrics, Prompt, SamplingParams
from lprl_workload.episode import BatchRef, Episode, EpisodeRef
from lprl_workload.metrics.metric import mean_std
from lprl_workload.metrics.reward_signal import SeenRewards, excerpt, seen_rewards
from lprl_workload.process.movement import here
from lprl_workload.rl.judged import judged
from lprl_workload.rl.lost import check, finished_groups, metrics_of, none_left, report_of, whole_enough
from lprl_workload.rl.nonfinite import nonfinite
from lprl_workload.rollout.dynamic import keep_group
from lprl_workload.rollout.seeds import sample_seed

PIECE_TOKENS = 1 << 20
"""Tokens scored at a time: the driver holds these, and their text, and lets them go."""
Decode = Callable[[Sequence[int]], str]
Score = Callable[[Sequence[Prompt], Sequence[str]], list[float]]
"""Rewards of responses; prompts[i] is the one response i answers."""


class Engines(Protocol):
    """Where episodes come from, and are read again (serving.py)."""

    def generate(self, requests: Sequence[GenerationRequest], params: SamplingParams) -> list[EpisodeRef]:
        """Return one episode per request, in order, as a reference to it."""

    def fetch(self, refs: Sequence[EpisodeRef]) -> list[Episode]:
        """Return episodes."""


class PromptSource(Protocol):
    """Prompts by position, shuffled per epoch; pure in its arguments (rollout/dataset.py)."""

    def __len__(self) -> int:
        """Rows of one epoch."""

    def take(self, position: int, count: int) -> tuple[list[Prompt], int]:
        """Return `count` prompts from `position` on, and the position after them."""


@dataclass(frozen=True, slots=True)
class Collected:
    """One rollout batch."""

    episodes: BatchRef
    """rollout_batch_size x samples_per_prompt, group by group."""
    position: int
    """Data position after it."""
    metrics: Metrics
    """reward, reward_std, response_tokens (mean length), truncated_fraction: over everything generated, before the group filter."""
    generated_tokens: int
    seen: SeenRewards
    """Rewards over everything generated, before the group filter."""
    episodes_report: EpisodeReport | None = None
    """What became of all episodes; None for single turns."""


def params_of(sampling: Sampling) -> SamplingParams:
    """Return the engine's parameters."""
    stops = sampling.stop, sampling.stop_token_ids
    return SamplingParams(sampling.temperature, sampling.top_p, sampling.top_k, sampling.max_response_tokens, *stops)


def requests_for(
    prompts: Sequence[Prompt], count: int, run_seed: int, step: int, seen: Counter[int], rows: bool = False
) -> list[GenerationRequest]:
    """Return `count` requests a prompt, `rows`: with its row. A prompt met again in the same step (`seen`) gets fresh seeds."""
    requests = []
    for group, prompt in enumerate(prompts):
        first = seen[prompt.index] * count
        seen[prompt.index] += 1
        for n in range(count):
            seed = sample_seed(run_seed, step, prompt.index, first + n)
            requests.append(GenerationRequest(prompt.token_ids, seed, prompt.index, group, n, prompt if rows else None))
    return requests


class Collector:
    """Makes rollout batches; pure in (step, position) given the weights."""

    def __init__(self, run: RunConfig, dataset: PromptSource, score: Score, decode: Decode) -> None:
        self._run, self._dataset, self._score, self._decode = run, dataset, score, decode
        self._params = params_of(run.sampling)
        self.several, self.rows = run.episode.type != "single-turn", run.episode.type == "python"
        """Whether episodes may have several turns; whether engines need the whole rows of prompts."""
        self.max_failed = run.episode.max_failed_fraction
        # Several threads collect ahead of the trainer; tokenizers bear one at a time, and so may reward functions.
        self._reading, self._scoring = threading.Lock(), threading.Lock()

    def prompts(self, dataset: PromptSource, position: int, count: int) -> tuple[list[Prompt], int]:
        """Return `count` prompts of a dataset from `position` on, and the position after them; one thread at a time."""
        with self._reading:
            return dataset.take(position, count)

    def after(self, position: int) -> int | None:
        """Return the position after a batch that begins at `position`; None when that is known only once it is made."""
        algorithm = self._run.algorithm
        return None if algorithm.dynamic_sampling.enabled else position + prompts_per_round(algorithm)

    def collect(self, step: int, position: int, engines: Engines) -> Collected:
        """Return the batch of `step`, taking prompts from `position` on."""
        algorithm = self._run.algorithm
        wanted, dynamic = algorithm.rollout_batch_size, algorithm.dynamic_sampling
        size = prompts_per_round(algorithm)
        kept: list[list[EpisodeRef]] = []
        flat: list[list[EpisodeRef]] = []
        seen: Counter[int] = Counter()
        answered: list[tuple[Prompt, list[EpisodeRef]]] = []
        drawn: list[EpisodeRef] = []
        for _ in range(dynamic.max_rounds if dynamic.enabled else 1):
            prompts, position = self.prompts(self._dataset, position, size)
            requests = requests_for(prompts, algorithm.samples_per_prompt, algorithm.seed, step, seen, self.rows)
            refs = engines.generate(requests, self._params)
            drawn += refs
            check(f"step {step}", report_of(drawn), self.max_failed)
            groups = self.score(prompts, refs, engines.fetch)
            answered += [pair for pair in zip(prompts, groups, strict=True) if pair[1]]
            for group in groups:
                if not whole_enough(group, algorithm):
                    continue
                informative = not dynamic.enabled or keep_group([sample.reward for sample in group])
                (kept if informative else flat).append(group)
            if len(kept) >= wanted:
                break
        # Too few informative groups after max_rounds: filled with what there is, oldest first.
        batch = (kept + flat)[:wanted]
        report = report_of(drawn)
        if not batch:
            raise none_left(f"step {step}", report)
        everything = [sample for _, group in answered for sample in group]
        episodes = BatchRef(tuple(replace(sample, group=number) for number, group in enumerate(batch) for sample in group))
        rewards = seen_rewards([prompt for prompt, _ in answered], [group for _, group in answered])
        metrics = _metrics(everything) | nonfinite(step, everything) | (metrics_of(report) if self.several else {})
        tokens = sum(s.drawn_tokens for s in drawn)
        return Collected(episodes, position, metrics, tokens, rewards, report if self.several else None)

    def score(
        self, prompts: Sequence[Prompt], drawn: Sequence[EpisodeRef], fetch: Callable[[Sequence[EpisodeRef]], list[Episode]]
    ) -> list[list[EpisodeRef]]:
        """Return one group of scored episodes a prompt, lost ones left out; tokens are fetched, and text made, in pieces."""
        refs = [ref for ref in drawn if not ref.lost]
        shows = {ref.group: ref.sample for ref in reversed(refs)}
        here.begin("rewards", len(refs), "responses")
        scored: list[EpisodeRef] = []
        for piece in pieces([ref.tokens for ref in refs], PIECE_TOKENS):
            part = refs[piece]
            episodes = fetch(part)
            with self._reading:
                pairs = zip(part, episodes, strict=True)
                shown = [judged(prompts[ref.group], episode, self._decode, self.several) for ref, episode in pairs]
            texts = [text for _, text in shown]
            with self._scoring:
                rewards = self._score([prompt for prompt, _ in shown], texts)
            scored += [
                replace(ref, reward=reward, excerpt=excerpt(text) if ref.sample == shows[ref.group] else "")
                for ref, reward, text in zip(part, rewards, texts, strict=True)
            ]
        return finished_groups(scored, len(prompts))


def pieces(lengths: Sequence[int], limit: int) -> list[slice]:
    """Cut a row into runs of at most `limit` tokens, or one episode; nothing is left out."""
    found, first, total = [], 0, 0
    for place, length in enumerate(lengths):
        if total and total + length > limit:
            found.append(slice(first, place))
            first, total = place, 0
        total += length
    return [*found, slice(first, len(lengths))] if lengths else []


def _metrics(samples: Sequence[EpisodeRef]) -> Metrics:
    reward, reward_std = mean_std([sample.reward for sample in samples])
    length, _ = mean_std([float(sample.drawn_tokens) for sample in samples])
    truncated, _ = mean_std([float(sample.finish in ("length", "turn-limit")) for sample in samples])
    return {"reward": reward, "reward_std": reward_std, "response_tokens": length, "truncated_fraction": truncated}
