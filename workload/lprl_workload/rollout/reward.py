"""`make_scorer`: a Reward of the contract -> a Scorer."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lprl_api.algorithm import Reward
from lprl_api.errors import UserError
from lprl_workload.rollout.reward_item import RewardItem, Scorer, finite
from lprl_workload.rollout.reward_math import MathJudge
from lprl_workload.rollout.reward_remote import RemoteScorer
from lprl_workload.rollout.reward_text import after_thinking, dapo_right

__all__ = ["RewardItem", "Scorer", "make_scorer"]
RewardFunction = Callable[[str, str, str | None, Mapping[str, Any]], float]


def _label(item: RewardItem) -> str:
    if item.label is None:
        raise UserError("data.labelKey: a prompt has no label, which this reward compares with")
    return item.label


class ExactScorer:
    """1 when the response, stripped of surrounding white space, is the label, else 0."""

    def score(self, items: Sequence[RewardItem]) -> list[float]:
        """Return 0 or 1 per item."""
        return [float(item.response.strip() == _label(item).strip()) for item in items]

    def close(self) -> None:
        """Nothing to end."""


class MathScorer:
    """1 when the boxed or last answer equals the label (math-verify decides where text does not), else 0."""

    def __init__(self, limit_s: float, after_thinking_only: bool = False) -> None:
        """Args: limit_s: seconds per response. after_thinking_only: judge what follows the reasoning, 0 without its end mark."""
        self._judge = MathJudge(limit_s)
        self._after_thinking_only = after_thinking_only

    def score(self, items: Sequence[RewardItem]) -> list[float]:
        """Return 0 or 1 per item."""
        texts = [(after_thinking(item.response) or "") if self._after_thinking_only else item.response for item in items]
        return [float(right) for right in self._judge.judge([(text, _label(item)) for text, item in zip(texts, items, strict=True)])]

    def close(self) -> None:
        """End the judging processes."""
        self._judge.close()


class DapoScorer:
    """+1 when the last `Answer:` line says the label, else -1."""

    def score(self, items: Sequence[RewardItem]) -> list[float]:
        """Return -1 or +1 per item."""
        return [1.0 if dapo_right(item.response, _label(item)) else -1.0 for item in items]

    def close(self) -> None:
        """Nothing to end."""


class PythonScorer:
    """A user's function f(prompt, response, label, metadata) -> float."""

    def __init__(self, path: str) -> None:
        """Import `package.module:function`; raises UserError when there is no such function."""
        module, _, name = path.partition(":")
        try:
            function = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise UserError(
                f"data.reward.function: {path}: {error}", "the module must be installed in the image or on PYTHONPATH"
            ) from error
        if not callable(function):
            raise UserError(f"data.reward.function: {path} is a {type(function).__name__}, needs a function")
        self._path = path
        self._function: RewardFunction = function

    def score(self, items: Sequence[RewardItem]) -> list[float]:
        """Return the function's value per item; what it raises passes through."""
        where = f"data.reward.function: {self._path} returned"
        return [finite(self._function(i.prompt, i.response, i.label, i.metadata), where) for i in items]

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
            return PythonScorer(reward.function)
