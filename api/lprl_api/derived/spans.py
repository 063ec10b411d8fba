"""How many nodes the groups of ranks span that talk to each other in every layer (pure).

Ranks are numbered node by node, the tensor index fastest, then context, then data, stages outermost; experts see the ranks of a stage as
another grid, expert-tensor fastest. So each group lies within a block of neighbouring ranks, aligned to its own size. Worked example,
8 GPUs a node, tensor 8, context 4, expert 32: a tensor group has 1 node, a context group 4, an expert group 4, the same four.
"""

from dataclasses import dataclass
from math import lcm

from lprl_api.spec.topology import TrainerLayout


@dataclass(frozen=True, slots=True)
class Span:
    """One kind of group."""

    name: str
    """`tensor`, `context` or `expert`: the field of the layout."""
    ranks: int
    """Of the block of neighbours a group lies within."""
    nodes: int
    """Most nodes that such a block touches."""


def spans(trainer: TrainerLayout, slots: int) -> tuple[Span, ...]:
    """Return the spans of the groups with more than one rank, on nodes of `slots` ranks."""
    found = []
    if trainer.tensor > 1:
        found.append(("tensor", trainer.tensor))
    if trainer.context > 1:
        found.append(("context", trainer.tensor * trainer.context))
    if trainer.expert * trainer.expert_tensor > 1:
        found.append(("expert", trainer.expert * trainer.expert_tensor))
    return tuple(Span(name, ranks, _touched(ranks, slots)) for name, ranks in found)


def whole_nodes(trainer: TrainerLayout, slots: int) -> int:
    """Return the nodes of the smallest group of nodes that no group of ranks is cut by; so is no multiple of it."""
    return lcm(slots, *(span.ranks for span in spans(trainer, slots))) // slots


def told(trainer: TrainerLayout, slots: int) -> str:
    """Return the spans in words: `tensor groups span 1 node, expert groups 4`."""
    found = [f"{span.name} groups {'span ' if not at else ''}{counted(span.nodes)}" for at, span in enumerate(spans(trainer, slots))]
    return ", ".join(found) or "no rank talks to another in a layer"


def counted(nodes: int) -> str:
    """Return `1 node` or `4 nodes`."""
    return f"{nodes} node{'s' if nodes > 1 else ''}"


def _touched(ranks: int, slots: int) -> int:
    blocks = lcm(ranks, slots) // ranks
    return max((block * ranks + ranks - 1) // slots - block * ranks // slots + 1 for block in range(blocks))
