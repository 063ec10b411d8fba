"""Rows of a family's table: one Megatron parameter of a layer, the checkpoint tensors it is made of, and how it is cut. Pure.

    whole     every tensor rank has all of it
    rows      each source is cut along its first dimension, a rank's cuts lie one after the other (gate above up)
    columns   cut along the second dimension; vectors are whole
    groups    query, key and value by query group (q q k | q q k ...), the fused rows cut in equal parts, through a group where
              there are more ranks than groups
    sections  query, key and value of a gated delta net, one below the other: each is cut by rows; values are as many rows as the
              tensor `beside` has columns, queries and keys are the rest in equal parts
    vocab     rows padded to a multiple that every rank gets an equal part of; nothing of a checkpoint lies in the padding

In names, `{}` is the number of an expert: of all in the checkpoint, of the rank's own in Megatron.
"""

from dataclasses import dataclass
from typing import Literal

Cut = Literal["whole", "rows", "columns", "groups", "sections", "vocab"]
Modules = Literal["local", "te"]
"""Megatron's own modules (CPUs), or TransformerEngine's, which keep some norms inside the linear layer after them, and experts together."""


@dataclass(frozen=True, slots=True)
class Row:
    """One parameter of a layer (or, in `outside`, of the model)."""

    parameter: str
    """In Megatron's layer, with its own modules."""
    sources: tuple[str, ...]
    """In the checkpoint's layer, in the order they lie in the parameter."""
    cut: Cut = "whole"
    te: str | None = None
    """Its name where it is another one with TransformerEngine's modules."""
    te_cut: Cut | None = None
    """How these cut it, where they do it otherwise."""
    beside: str | None = None
    """Only in layers whose checkpoint has this tensor: the same norm is another parameter before experts."""

    def name(self, modules: Modules) -> str:
        """Return the parameter's name in a layer of such modules."""
        return self.te if modules == "te" and self.te is not None else self.parameter

    def cut_by(self, modules: Modules) -> Cut:
        """Return how such modules cut it."""
        return self.te_cut if modules == "te" and self.te_cut is not None else self.cut

    @property
    def of_experts(self) -> bool:
        """Return whether there is one for each routed expert."""
        return "{}" in self.parameter
