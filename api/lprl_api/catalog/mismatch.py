"""What mismatch between trainer and engine to expect of a precision pair: measured rows, and what follows from them.

Measured with SmolLM2-135M-Instruct (dense) on one H200: SGLang 0.5.17 against this project's trainer in BF16, output head in float32
on both sides, 256 prompts, 10 to 14 thousand drawn tokens (docs/precision/real/served.json; low and high: over block, channel and
tensor scales, widths and group sizes). Small dense models are not large ones: take the order of magnitude.
"""

from dataclasses import dataclass

from lprl_api.spec.algorithm import Algorithm
from lprl_api.spec.precision import Precision, Rollout, Training

SOURCE = "SmolLM2-135M on SGLang, one H200"
ANSWER_TOKENS = 55
"""Mean length of the answers of which `Row.answers` is told."""
FEW = 0.5
"""An effective sample size below this leaves ratios of whole answers to a few of them."""


@dataclass(frozen=True, slots=True)
class Row:
    """Figures (low, high) of one pair."""

    training: Training
    rollout: Rollout
    activations: str
    """dynamic or none where FP8 is served; empty elsewhere."""
    k3: tuple[float, float]
    answers: tuple[float, float]
    """Effective sample size, as a share, of the importance weights of whole answers."""


ROWS = (
    Row(Training.BF16, Rollout.BF16, "", (0.0011, 0.0012), (0.88, 0.90)),
    Row(Training.BF16, Rollout.FP8, "dynamic", (0.030, 0.038), (0.11, 0.14)),
    Row(Training.BF16, Rollout.FP8, "none", (0.021, 0.022), (0.16, 0.22)),
    Row(Training.FP8, Rollout.FP8, "dynamic", (0.021, 0.021), (0.15, 0.15)),
    Row(Training.FP8_QAT, Rollout.FP8, "dynamic", (0.012, 0.016), (0.28, 0.30)),
    Row(Training.FP8_QAT, Rollout.FP8, "none", (0.0013, 0.0015), (0.85, 0.87)),
    Row(Training.INT4_QAT, Rollout.INT4, "", (0.0017, 0.0021), (0.84, 0.87)),
    Row(Training.BF16, Rollout.INT4, "", (0.54, 0.97), (0.00, 0.01)),
)
FLOOR = ROWS[0]
UNMEASURED = "not measured"


def expected(precision: Precision) -> Row | None:
    """Return the measured row of a pair; None when it was not measured."""
    activations = precision.fp8.activations if precision.rollout is Rollout.FP8 else ""
    wanted = (precision.training, precision.rollout, activations)
    return next((row for row in ROWS if (row.training, row.rollout, row.activations) == wanted), None)


def between(figures: tuple[float, float], form: str = "g") -> str:
    """Return (low, high) in words."""
    low, high = figures
    return f"{low:{form}}" if low == high else f"{low:{form}} to {high:{form}}"


def expectation(precision: Precision) -> str:
    """Return the expectation as a line of the plan."""
    row = expected(precision)
    return f"K3 {UNMEASURED} for this pair" if row is None else f"K3 about {between(row.k3)} ({SOURCE})"


def sequence_level(algorithm: Algorithm) -> str | None:
    """Return the field that makes importance ratios ones of whole responses; None when none does."""
    if algorithm.name == "gspo":
        return "algorithm.name"
    correction = algorithm.correction
    return "algorithm.correction.level" if correction.type != "none" and correction.level == "sequence" else None


def sequence_remedy(precision: Precision) -> str | None:
    """Return what fits instead of ratios of whole responses with a pair; None where they are fine, or nothing was measured."""
    row = expected(precision)
    if row is None or row.answers[1] >= FEW:
        return None
    pair = "training int4-qat" if precision.rollout is Rollout.INT4 else "training fp8-qat with fp8.activations none"
    return (
        f"token-level ratios, or precision.{pair}: over answers of {ANSWER_TOKENS} tokens the effective sample size of whole ones was "
        f"{between(row.answers, '.2f')} with this pair ({between(FLOOR.answers, '.2f')} with bf16/bf16; {SOURCE})"
    )


def remarks(precision: Precision) -> list[str]:
    """Return what a pair costs that another would not."""
    found = []
    if precision.training is Training.FP8 and precision.rollout is Rollout.FP8:
        found.append(
            "fp8/fp8: rounding activations on both sides adds two nearly independent noises; on the small dense model measured, "
            "fp8-qat/fp8 had about half the K3, and with precision.fp8.activations none a fifteenth"
        )
    if precision.training is Training.BF16 and precision.rollout is Rollout.INT4:
        found.append("INT4 rollout without INT4 training: expect a larger mismatch; precision.training int4-qat learns the rounding")
    if precision.training is Training.BF16 and precision.rollout is Rollout.FP8:
        found.append(
            "FP8 rollout without FP8 training: precision.training fp8-qat learns the rounding of the weights, needs no FP8 arithmetic in "
            "the trainer, and had less than half the K3 on the small dense model measured"
        )
    return found
