"""Random streams of the rollout: a seed per response, a uniform number per token, both pure functions of their position.

So a response does not depend on the batch it is drawn in, on its place there, on the engine, or on what was drawn before.
"""

import hashlib

import torch
from torch import Tensor

_GAMMA = 0x9E3779B97F4A7C15
"""Increment of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014)."""


def sample_seed(run_seed: int, step: int, prompt_index: int, sample: int) -> int:
    """Return the 63-bit seed of one response; distinct arguments give independent streams."""
    digest = hashlib.sha256(f"lprl-sample:{run_seed}:{step}:{prompt_index}:{sample}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def turn_seed(seed: int, turn: int) -> int:
    """Return the seed of an episode's turn (0-based) of the policy: the response's own for the first, so that one turn is drawn as ever."""
    if not turn:
        return seed
    digest = hashlib.sha256(f"lprl-turn:{seed}:{turn}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def _signed(value: int) -> int:
    """Return the two's complement int64 of a 64-bit pattern."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def uniforms(seeds: Tensor, positions: Tensor) -> Tensor:
    """Return float64 [B] in (0, 1): the SplitMix64 output of stream `seeds` [B] int64 at counter `positions` [B] int64.

    Integer arithmetic only, so every device gives the same bits.
    """
    z = seeds + (positions + 1) * _signed(_GAMMA)
    z = (z ^ _shift_right(z, 30)) * _signed(0xBF58476D1CE4E5B9)
    z = (z ^ _shift_right(z, 27)) * _signed(0x94D049BB133111EB)
    z = z ^ _shift_right(z, 31)
    return (_shift_right(z, 11).to(torch.float64) + 0.5) * 2.0**-53
