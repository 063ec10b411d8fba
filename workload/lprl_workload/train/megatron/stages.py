"""Which decoder layers lie where: stages of a pipeline, and the model chunks of each stage. Pure.

A stage's layers are cut into `vpp` equal chunks, and the layers of the model run through the first chunk of every stage, then through
the second of every stage, and so on (Megatron's interleaved order). Worked example, layers (4, 4, 2) and vpp 2:

    stage 0: layers 0 1 | 5 6        stage 1: layers 2 3 | 7 8        stage 2: layer 4 | 9
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stages:
    """A pipeline. Raises ValueError where a stage's layers cannot be cut into chunks."""

    layers: tuple[int, ...]
    """Of each stage."""
    vpp: int = 1
    """Model chunks of a stage."""

    def __post_init__(self) -> None:
        wrong = [n for n in self.layers if n % self.vpp or n < self.vpp]
        if wrong:
            raise ValueError(f"stages of {list(self.layers)} layers: {wrong[0]} cannot be cut into {self.vpp} chunks of equally many")

    def chunk(self, stage: int, chunk: int) -> range:
        """Return the layers of one chunk of one stage, numbered over the model."""
        each = [n // self.vpp for n in self.layers]
        first = chunk * sum(each) + sum(each[:stage])
        return range(first, first + each[stage])

    def embeds(self, stage: int, chunk: int) -> bool:
        """Return whether the embedding lies there."""
        return stage == 0 and chunk == 0

    def ends(self, stage: int, chunk: int) -> bool:
        """Return whether final norm and head lie there."""
        return stage == len(self.layers) - 1 and chunk == self.vpp - 1
