"""One weight matrix of a model, by module kind and how tensor parallelism shares it."""

from dataclasses import dataclass
from typing import Literal, get_args

Kind = Literal["embedding", "head", "norm", "router", "plain", "attention", "mlp", "shared-expert", "expert"]
"""`plain`: linear layers and convolutions that every format leaves in high precision (gates, indexer weights, state-space parameters)."""
Sharding = Literal["column", "row", "replicated", "vocab"]
LINEAR_KINDS: tuple[Kind, ...] = ("attention", "mlp", "shared-expert", "expert")
KINDS: dict[str, Kind] = {kind: kind for kind in get_args(Kind)}
SHARDINGS: dict[str, Sharding] = {sharding: sharding for sharding in get_args(Sharding)}


@dataclass(frozen=True)
class Weight:
    """One weight matrix (or vector, cols 1) of one layer; experts share a row through `copies`."""

    module: str
    """Hugging Face module name inside the layer, or of the model for embedding, head and final norm."""
    kind: Kind
    rows: int
    cols: int
    sharding: Sharding
    copies: int = 1

    @property
    def parameters(self) -> int:
        """Elements of all copies."""
        return self.rows * self.cols * self.copies
