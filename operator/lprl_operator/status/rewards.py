"""PURE: what the driver saw of its rewards -> the condition RewardSignal, and a hint for the job's message."""

from collections.abc import Sequence

from lprl_api.names import Condition, Reason
from lprl_api.text import one_line
from lprl_api.wire.progress import Progress, RewardSample, RewardSignal
from lprl_api.wire.status import ConditionStatus
from lprl_operator.decide.decision import ConditionValue, Finding
from lprl_operator.status import conditions as of

_STATES: dict[str, tuple[ConditionValue, str]] = {
    "measuring": ("Unknown", Reason.MEASURING),
    "varied": ("True", Reason.VARIED),
    "all-zero": ("False", Reason.ALL_ZERO),
    "all-equal": ("False", Reason.ALL_EQUAL),
}


def finding(progress: Progress | None, before: Sequence[ConditionStatus]) -> tuple[Finding, ...]:
    """Return the condition; none while nothing new is known: an attempt that begins anew measures anew, and what was seen still holds."""
    signal = progress.reward_signal if progress is not None else None
    if signal is None:
        return ()
    known = of.find(before, Condition.REWARD_SIGNAL)
    if signal.state == "measuring" and known is not None and known.status != "Unknown":
        return ()
    value, reason = _STATES[signal.state]
    return (Finding(Condition.REWARD_SIGNAL, value, reason, _message(signal)),)


def hint(conditions: Sequence[ConditionStatus]) -> str:
    """Return what the job's message says of rewards that are all equal; empty while they are not, or nobody knows."""
    found = of.find(conditions, Condition.REWARD_SIGNAL)
    if found is None or found.status != "False":
        return ""
    return f"{found.message.partition(';')[0]} (condition {Condition.REWARD_SIGNAL})"


def _message(signal: RewardSignal) -> str:
    if signal.state == "varied":
        return "rewards differ"
    if signal.state == "measuring":
        return f"{signal.steps} steps seen" + (f", every reward {signal.value:g}" if signal.value is not None else "")
    told = " | ".join(_sample(sample) for sample in signal.samples)
    return f"every reward is {signal.value or 0:g} ({signal.responses} responses of {signal.steps} steps); as the scorer saw them: {told}"


def _sample(sample: RewardSample) -> str:
    label = f", label {_quoted(sample.label)}" if sample.label else ", no label"
    return f"prompt ...{_quoted(sample.prompt)}, response {_quoted(sample.response)}{label}: {sample.reward:g}"


def _quoted(text: str) -> str:
    """Return a text in quotes with its line breaks spelt out: a condition's message is one line."""
    return one_line(repr(text))
