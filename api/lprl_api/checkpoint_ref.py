"""The name of a checkpoint, as pods, status and recorded inspections say it."""

from lprl_api.base import Documented, NonNegativeInt


class CheckpointRef(Documented):
    """The newest complete checkpoint."""

    step: NonNegativeInt
    """Finished rollout steps it holds."""
    path: str
    """VOLUME:PATH."""
