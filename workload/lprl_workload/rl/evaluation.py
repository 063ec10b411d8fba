"""Held-out evaluation: mean reward and pass@k over a fixed set of prompts, greedy unless the job says otherwise."""

import logging
from collections import Counter
from collections.abc import Sequence
from statistics import fmean

from lprl_api.derived.effective import evaluation_sampling
from lprl_api.model.formats import WeightFormat, described
from lprl_api.spec.algorithm import Evaluation, Sampling
from lprl_api.wire.progress import EvaluationResult
from lprl_workload.data import Prompt
from lprl_workload.episode import EpisodeRef
from lprl_workload.metrics.pass_at import pass_at_k
from lprl_workload.metrics.reward_signal import seen_rewards, told
from lprl_workload.rl.collect import Collector, Engines, PromptSource, params_of, requests_for
from lprl_workload.rl.lost import check, none_left, report_of

log = logging.getLogger(__name__)
CORRECT_REWARD = 1.0
"""A response counts as correct for pass@k when its reward is at least this."""


class Evaluator:
    """Evaluates the weights the engines serve."""

    def __init__(self, evaluation: Evaluation, dataset: PromptSource, collector: Collector, sampling: Sampling, seed: int) -> None:
        """`sampling`: the job's, from which the evaluation's follows where it has none of its own."""
        self.settings = evaluation
        self._dataset, self._collector, self._seed = dataset, collector, seed
        self._said = False
        self._params = params_of(evaluation_sampling(evaluation, sampling))

    def evaluate(self, step: int, engines: Engines, fmt: WeightFormat) -> EvaluationResult:
        """Return reward and pass@k after `step` steps, made by engines that serve `fmt`."""
        count = self.settings.samples_per_prompt
        prompts, _ = self._collector.prompts(self._dataset, 0, len(self._dataset))
        # Negative step numbers: streams of their own, never those of a training step.
        requests = requests_for(prompts, count, self._seed, -1 - step, Counter(), self._collector.rows)
        drawn = engines.generate(requests, self._params)
        check(f"evaluation after step {step}", report_of(drawn), self._collector.max_failed)
        groups = self._collector.score(prompts, drawn, engines.fetch)
        answered = [(prompt, group) for prompt, group in zip(prompts, groups, strict=True) if group]
        if not answered:
            raise none_left(f"evaluation after step {step}", report_of(drawn))
        prompts, groups = [prompt for prompt, _ in answered], [group for _, group in answered]
        self._say_if_zero(step, prompts, groups)
        return EvaluationResult(
            step=step,
            reward=fmean(sample.reward for group in groups for sample in group),
            pass_at=_pass_at(groups, self.settings.pass_at),
            served=described(fmt),
            lost_episodes=sum(ref.lost for ref in drawn),
        )

    def _say_if_zero(self, step: int, prompts: Sequence[Prompt], groups: Sequence[Sequence[EpisodeRef]]) -> None:
        """Say, once an attempt, that every held-out reward is 0: the model cannot do it yet, or labels do not fit."""
        seen = seen_rewards(prompts, groups)
        if not self._said and seen.low == 0 == seen.high:
            self._said = True
            found = f"held-out evaluation after step {step}: every reward is 0 ({seen.responses} responses)"
            log.warning("%s; as the scorer saw them:\n%s", found, "\n".join(told(seen.samples)))


def _pass_at(groups: Sequence[Sequence[EpisodeRef]], wanted: Sequence[int]) -> dict[str, float]:
    """Return pass@k over the prompts that have k responses: lost episodes are none."""
    correct = [(len(group), sum(sample.reward >= CORRECT_REWARD for sample in group)) for group in groups]
    found = {str(k): [pass_at_k(n, c, k) for n, c in correct if n >= k] for k in wanted}
    return {k: fmean(values) for k, values in found.items() if values}
