"""Dynamic sampling: which groups carry a learning signal."""

from collections.abc import Sequence

MIN_SPREAD = 1e-6
"""Rewards closer than this are equal: a group's advantages would be noise."""


def keep_group(rewards: Sequence[float]) -> bool:
    """Return whether a group's rewards differ, so that group-relative advantages are not all zero."""
    return bool(rewards) and max(rewards) - min(rewards) > MIN_SPREAD
