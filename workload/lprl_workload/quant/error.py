"""What the error of quantised weights is measured in."""

import math


def relative_rms(squared_error: float, squared_weight: float) -> float:
    """Return sqrt(sum of squared errors / sum of squared weights); 0 for weights of zeros, or none."""
    return math.sqrt(squared_error / squared_weight) if squared_weight else 0.0
