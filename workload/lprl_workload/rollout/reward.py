"""`make_scorer`: a Reward of the contract -> a Scorer."""

from collections.abc import Sequence

from lprl_api.errors import UserError
from lprl_api.spec.algorithm import Reward
from lprl_workload.rollout.reward_item import RewardItem, Scorer
from lprl_workload.rollout.reward_math import MathJudge
from lprl_workload.rollout.reward_python import PythonScorer
from lprl_workload.rollout.reward_remote import RemoteScorer
from lprl_workload.rollout.reward_text import after_thinking, dapo_right

__all__ = ["RewardItem", "Scorer", "make_scorer"]


class ExactScorer:
    """1 when the response, stripped of surrounding white space, is the label (of several, any), else 0."""

    def score(self, items: Sequence[RewardItem]) -> list[float]:
        """Return 0 or 1 per item."""
        return [float(item.response.strip() in {answer.strip() for answer in item.answers}) for item in items]

    def close(self) -> None:
        """Nothing to end."""


class MathScorer:
    """1 when the boxed or last answer equals the label, of several any (math-verify decides where text does not), else 0."""

    def __init__(self, limit_s: float, after_thinking_only: bool = False) -> None:
        """Args: limit_s: seconds per response. after_thinking_only: judge what follows the reasoning, 0 without its end mark."""
        self._judge = MathJudge(limit_s)
        self._after_thinking_only = after_thinking_only

    def score(self, items: Sequence[RewardItem]) -> list[float]:
        """Return 0 or 1 per item."""
        texts = [(after_thinking(item.response) or "") if self._after_thinking_only else item.response for item in items]
        pairs = [(text, answer) for text, item in zip(texts, items, strict=True) for answer in item.answers]
        verdicts = iter(self._judge.judge(pairs))
        return [float(any([next(verdicts) for _ in item.answers])) for item in items]  # a list: every verdict is taken off the row

    def close(self) -> None:
        """End the judging processes."""
        self._judge.close()


class DapoScorer:
    """+1 when the last `Answer:` line says the label (of several, any), else -1."""

    def score(self, items: Sequence[RewardItem]) -> list[float]:
        """Return -1 or +1 per item."""
        return [1.0 if any(dapo_right(item.response, answer) for answer in item.answers) else -1.0 for item in items]

    def close(self) -> None:
        """Nothing to end."""


def make_scorer(reward: Reward) -> Scorer:
    """Return the scorer of a run; raises UserError when its settings cannot work."""
    match reward.type:
        case "exact":
            return ExactScorer()
        case "math":
            return MathScorer(reward.timeout_seconds)
        case "deepscaler":
            return MathScorer(reward.timeout_seconds, after_thinking_only=True)
        case "dapo":
            return DapoScorer()
        case "remote":
            return RemoteScorer(reward)
        case "python":
            if reward.function is None:
                raise UserError("data.reward.function: missing, needs package.module:function for reward type python")
            return PythonScorer(reward.function, reward.timeout_seconds)
