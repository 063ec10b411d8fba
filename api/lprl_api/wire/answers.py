"""What a conversion does to a model's answers, in numbers: the result of `lprl verify --prompts` and of `conversion.verify`."""

import hashlib
from typing import Literal

from lprl_api.base import Contract, Documented
from lprl_api.spec.operations import ConversionVerify


class Distance(Contract):
    """How far a model's next-token distributions are from its source's, over the positions that count. Logarithms are natural."""

    positions: int
    kl_mean: float
    """Mean of KL(source || converted) over positions, nats."""
    kl_p50: float
    kl_p99: float
    top1_agreement: float
    """Share of positions in which both models' likeliest token is the same."""
    nll_source: float
    """Mean negative log-likelihood of the text's own tokens under the source, nats."""
    nll_converted: float
    nll_change: float
    """nll_converted - nll_source: above 0, the converted model finds the text less likely."""


class PartSensitivity(Contract):
    """One part of the model left at the source's weights, everything else converted."""

    layer: int
    part: Literal["layer", "attention", "mlp"]
    """mlp: also a layer's experts."""
    modules: str
    """Pattern of the part's modules, as `--exclude` and precision.excludeModules take it."""
    kl_mean: float
    """What is left of the mean KL."""
    recovered: float
    """1 - kl_mean / the converted model's; below 0 where leaving the part out makes it worse."""


class Sensitivity(Contract):
    """Which parts of the model the conversion is felt in."""

    texts: int
    """Texts it was measured on."""
    kl_mean: float
    """Of the converted model on these texts."""
    parts: tuple[PartSensitivity, ...] = ()
    """By layer."""


class Advice(Contract):
    """What to do, and what it would leave."""

    kind: Literal["serve", "exclude", "group-size", "qat", "none-stands-out"]
    text: str
    kl_mean: float | None = None
    """Mean KL measured on all texts with the advice taken; None where nothing was to be measured."""
    exclude_modules: tuple[str, ...] = ()
    group_size: int | None = None


class Answers(Contract):
    """A converted folder against its source on a file of texts."""

    prompts: str
    texts: int
    left_out: int = 0
    """Texts longer than was asked for."""
    with_response: int
    """Texts whose response counts; of the others, every token from the second on."""
    device: str
    distance: Distance
    sensitivity: Sensitivity | None = None
    advice: tuple[Advice, ...] = ()


def settings_digest(wanted: ConversionVerify) -> str:
    """Return what tells two wishes apart that are measured differently; a limit changes no figure."""
    text = wanted.model_copy(update={"max_kl": None}).model_dump_json(by_alias=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class LargestError(Contract):
    """The quantised tensor of a conversion whose weights are furthest from the source's."""

    tensor: str = ""
    """Empty where nothing was quantised."""
    relative_rms_error: float | None = 0.0
    """None where it is no finite number."""

    def is_above(self, limit: float) -> bool:
        """Whether a limit is passed; by what is no number, every one is."""
        return self.relative_rms_error is None or self.relative_rms_error > limit

    def words(self) -> str:
        """The figure for people."""
        return "not finite" if self.relative_rms_error is None else f"{self.relative_rms_error:.6f}"


class ConversionAnswers(Contract):
    """What a finalise Job says in its termination message."""

    settings: str
    """`settings_digest` of what was asked for."""
    distance: Distance | None = None
    advice: tuple[Advice, ...] = ()
    file: str = ""
    """Where all figures are, in the conversion's volume."""
    problem: str = ""
    """Why there are no figures: what is wrong with the texts, and what to do. Only the job that asked for them is to fail."""


class AnswersStatus(Documented):
    """What the conversion that is served does to the model's answers, on the texts of spec.conversion.verify."""

    settings: str = ""
    """Digest of the settings it was measured with."""
    positions: int = 0
    """Tokens that counted."""
    kl_mean: str = ""
    """Mean KL(source || converted) per token, nats."""
    kl_p99: str = ""
    """99th percentile of it."""
    top1_agreement: str = ""
    """Share of tokens at which both models' likeliest token is the same."""
    nll_change: str = ""
    """Change of the mean negative log-likelihood of the texts, nats; above 0 they are less likely."""
    advice: tuple[str, ...] = ()
    """What to do, with what was measured of it."""
    file: str = ""
    """Every figure, a file in the conversion's volume."""
