"""Learning rate of an optimizer step: linear warm-up, then constant, linear or cosine decay (pure)."""

import math

from lprl_api.derived.effective import optimizer_steps
from lprl_api.spec.algorithm import Algorithm, Optimizer


def total_steps(algorithm: Algorithm, steps: int | None = None) -> int:
    """Return the optimizer steps of a run: rollout steps (`steps`, where they were raised since) times optimizer steps per rollout."""
    return optimizer_steps(algorithm if steps is None else algorithm.model_copy(update={"steps": steps}))


def learning_rate(optimizer: Optimizer, step: int, total: int) -> float:
    """Return the rate of optimizer step `step` (0-based) of `total`.

    Warm-up: step s < warmupSteps gets peak * (s + 1) / warmupSteps. After it, with d = (s - warmup) / (total - warmup) in [0, 1):
    constant: peak; linear: peak + (min - peak) * d; cosine: min + (peak - min) * (1 + cos(pi * d)) / 2. Past `total`: min
    (constant: peak).
    """
    peak, low = optimizer.learning_rate, min(optimizer.min_learning_rate, optimizer.learning_rate)
    if step < optimizer.warmup_steps:
        return peak * (step + 1) / optimizer.warmup_steps
    if optimizer.schedule == "constant":
        return peak
    done = min(1.0, (step - optimizer.warmup_steps) / max(1, total - optimizer.warmup_steps))
    if optimizer.schedule == "linear":
        return peak + (low - peak) * done
    return low + (peak - low) * (1 + math.cos(math.pi * done)) / 2
