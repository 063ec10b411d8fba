"""pass@k (pure)."""

from math import comb


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """Return the unbiased estimate of pass@k from `correct` of `samples` responses: 1 - C(n-c, k) / C(n, k).

    Raises ValueError when k exceeds the samples.
    """
    if k > samples:
        raise ValueError(f"pass@{k} needs {k} samples a prompt, there are {samples}")
    return 1.0 - comb(samples - correct, k) / comb(samples, k)
