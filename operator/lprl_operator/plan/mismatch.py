"""What mismatch between trainer and engine to expect of a precision pair: measured rows, and what follows from them.

Measured with SmolLM2-135M-Instruct (dense) on one H200: SGLang 0.5.17 against a BF16 trainer, output head in float32 on both sides,
256 prompts, 10 to 14 thousand drawn tokens. Small dense models are not large ones: take the order of magnitude.
"""

from dataclasses import dataclass

from lprl_api.spec.algorithm import Algorithm
from lprl_api.spec.precision import Precision, Rollout, Training

SOURCE = "SmolLM2-135M on SGLang, one H200"


@dataclass(frozen=True, slots=True)
class Row:
    """K3 (low, high) of one pair."""

    training: Training
    rollout: Rollout
    activations: str
    """dynamic or none where FP8 is served; empty elsewhere."""
    k3: tuple[float, float]


ROWS = (
    Row(Training.BF16, Rollout.BF16, "", (0.0011, 0.0011)),
    Row(Training.BF16, Rollout.FP8, "dynamic", (0.030, 0.033)),
    Row(Training.BF16, Rollout.FP8, "none", (0.022, 0.022)),
    Row(Training.FP8, Rollout.FP8, "dynamic", (0.021, 0.023)),
    Row(Training.FP8_QAT, Rollout.FP8, "dynamic", (0.012, 0.013)),
    Row(Training.FP8_QAT, Rollout.FP8, "none", (0.0015, 0.0015)),
    Row(Training.INT4_QAT, Rollout.INT4, "", (0.0016, 0.0021)),
    Row(Training.BF16, Rollout.INT4, "", (0.50, 0.98)),
)
UNMEASURED = "not measured"


def expected(precision: Precision) -> Row | None:
    """Return the measured row of a pair; None when it was not measured."""
    activations = precision.fp8.activations if precision.rollout is Rollout.FP8 else ""
    wanted = (precision.training, precision.rollout, activations)
    return next((row for row in ROWS if (row.training, row.rollout, row.activations) == wanted), None)


def expectation(precision: Precision) -> str:
    """Return the expectation as a line of the plan."""
    row = expected(precision)
    if row is None:
        return f"K3 {UNMEASURED} for this pair"
    low, high = row.k3
    return f"K3 about {low:g}{f' to {high:g}' if high != low else ''} ({SOURCE})"


def warnings(precision: Precision, algorithm: Algorithm) -> list[str]:
    """Return what a pair does not go with."""
    found = []
    sequence = algorithm.name == "gspo" or (algorithm.correction.type != "none" and algorithm.correction.level == "sequence")
    if sequence and precision.rollout is Rollout.FP8 and precision.fp8.activations == "dynamic":
        found.append(
            "sequence-level importance ratios with FP8 activations in the engine: over 54 tokens their effective sample size was "
            "0.09 to 0.25 (BF16: 0.81); take a token-level algorithm or correction, or precision.fp8.activations none"
        )
    if precision.training is Training.FP8 and precision.rollout is Rollout.FP8:
        found.append(
            "fp8/fp8: rounding activations on both sides adds two nearly independent noises; on the small dense model measured, "
            "fp8-qat/fp8 had about half the K3, and with precision.fp8.activations none a fifteenth"
        )
    if precision.training is Training.BF16 and precision.rollout is Rollout.INT4:
        found.append("INT4 rollout without INT4 training: expect a larger mismatch; precision.training int4-qat learns the rounding")
    return found
