"""Attention to the keys an indexer chooses (DeepSeek-V3.2, GLM-5): each query attends to the `index_topk` keys of the highest index scores.

The class's indexer computes the choice, and wants a causal mask for it wherever it runs; the attention functions here (packed_attention.py,
served_attention.py) are handed its indices. Over sequences laid end to end it runs on the rows of each block, continuations behind the
index keys of their prompt; it then gives one tensor of indices a part, which layers that share a choice pass on as they find it.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lprl_workload.hf.attend import causal
from lprl_workload.hf.packed_attention import Families, Layout, Rectangle

Call = Any
Part = tuple[Tensor, ...]
"""Hidden states, query latents, cosines and sines of the tokens of a part, [tokens, ...] each."""


def indexed_layers(model: nn.Module) -> list[nn.Module]:
    """Return the attention layers whose keys an indexer chooses, their own or another layer's."""
    return [module for module in model.modules() if hasattr(module, "indexer") and hasattr(module, "kv_a_proj_with_mqa")]


def give_masks(model: Any) -> None:
    """Have a model with indexers find a causal mask where its caller gives none, in place."""
    if indexed_layers(model):
        model.model.register_forward_pre_hook(_with_mask, with_kwargs=True)


def _with_mask(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if kwargs.get("attention_mask") is not None:
        return args, kwargs
    ids = kwargs["input_ids"]
    # Of packed tokens each block has its own: the indexers below look for none.
    mask = torch.zeros(1, 1, device=ids.device) if kwargs.get("layout") is not None else causal(ids.shape[1], ids.shape[1], ids.device)
    return args, kwargs | {"attention_mask": mask[None, None]}


def use_packed_indexers(model: nn.Module) -> None:
    """Have a trained model's indexers keep sequences apart where their layer is given a `layout`, in place."""
    for layer in indexed_layers(model):
        if layer.indexer is not None:
            layer.register_forward_pre_hook(_hand_layout, with_kwargs=True)
            use_packed_indexer(layer.indexer)


def use_packed_indexer(indexer: Any) -> None:
    """Have an indexer keep sequences apart as its attribute `layout` says (None: it is given rows), in place.

    A choice has no gradient, so its weights are not trained: they stay as published.
    """
    indexer.requires_grad_(False)
    indexer.forward = partial(_packed, indexer, indexer.forward)


def _hand_layout(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    module.indexer.layout = kwargs.get("layout")  # type: ignore[assignment]


@torch.no_grad()
def _packed(
    indexer: Any,
    own: Call,
    hidden_states: Tensor,
    q_resid: Tensor,
    position_embeddings: tuple[Tensor, Tensor],
    attention_mask: Tensor,
    position_ids: Tensor | None = None,
    past_key_values: Any = None,
) -> Tensor | list[Tensor]:
    """Return what the indexer chooses [B, Q, top]; of packed tokens one such tensor for each part of the layout."""
    layout: Layout | None = indexer.layout
    if layout is None:
        return own(hidden_states, q_resid, position_embeddings, attention_mask, position_ids, past_key_values=past_key_values)  # type: ignore[no-any-return]
    sizes = [size for block in layout for size in block.sizes]
    split = [torch.split(x[0], sizes) for x in (hidden_states, q_resid, *position_embeddings)]
    parts: list[Part] = list(zip(*split, strict=True))
    found: list[Tensor] = []
    for block in layout:
        mine = parts[len(found) : len(found) + len(block.sizes)]
        if isinstance(block, Families):
            keys = IndexKeys()
            width = block.prompts.width
            found.append(_rows(own, block.prompts, mine[0], causal(width, width, hidden_states.device), keys))
            found.append(_rows(own, block.continuations, mine[1], block.mask, keys.given(block.continuations.rows // block.prompts.rows)))
        else:
            width = block.rectangle.width
            found.append(_rows(own, block.rectangle, mine[0], causal(width, width, hidden_states.device), IndexKeys()))
    return found


def _rows(own: Call, rectangle: Rectangle, part: Part, mask: Tensor, keys: "IndexKeys") -> Tensor:
    hidden, resid, cos, sin = (rectangle.spread(x) for x in part)
    return own(hidden, resid, (cos, sin), mask[None], None, past_key_values=keys)  # type: ignore[no-any-return]


class IndexKeys:
    """Stands for transformers' cache: it puts a pass's index keys behind those it was given, and keeps them."""

    def __init__(self, given: Tensor | None = None) -> None:
        self._given, self._left = given, given

    def given(self, each: int) -> "IndexKeys":
        """Return the cache of the passes that go on, `each` for a row of this one."""
        assert self._left is not None, "prompts go first"
        return IndexKeys(self._left.repeat_interleave(each, dim=0))

    def update_indexer(self, indexer_key_states: Tensor, layer_idx: int) -> Tensor:
        """Take index keys [B, T, d]; returns all there are."""
        self._left = indexer_key_states if self._given is None else torch.cat([self._given, indexer_key_states], dim=1)
        return self._left
