"""Masks that the layers of a pass share, kept from one layer to the next within a budget of bytes.

A trainer's micro-batches and an engine's prompts are of nearly as many lengths as there are of them, and a mask is the square of its
length: whatever is kept for ever grows for ever. What does not fit is made anew, which is little beside the attention it is for.

Legend: Q queries, K keys; queries are the last of the keys.
"""

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock

import torch
from torch import Tensor

KEPT_BYTES = 2**28
"""Of all masks kept by a process: one of 8192 x 8192, or many short ones."""
KEPT = 64
"""Masks kept at most."""

Key = tuple[str, int, int, int, str]
_kept: OrderedDict[Key, Tensor] = OrderedDict()
_lock = Lock()


def band(queries: int, keys: int, window: int, device: torch.device) -> Tensor:
    """Return what is added to scores [Q, K] so that each query sees itself and the window - 1 keys before it: 0 or -inf, float32."""
    return _shared(("band", queries, keys, window, str(device)), lambda column, place: column <= place - window)


def chunks(queries: int, keys: int, chunk: int, device: torch.device) -> Tensor:
    """Return what is added to scores [Q, K] so that each query sees itself and what is before it in its chunk: 0 or -inf, float32."""
    return _shared(("chunks", queries, keys, chunk, str(device)), lambda column, place: column < place // chunk * chunk)


def _shared(key: Key, too_early: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    with _lock:
        if key in _kept:
            _kept.move_to_end(key)
            return _kept[key]
    _, queries, keys, _, device = key
    column = torch.arange(keys, device=device)
    place = torch.arange(keys - queries, keys, device=device)[:, None]
    hidden = (column > place) | too_early(column, place)
    mask = torch.zeros(hidden.shape, device=device).masked_fill_(hidden, float("-inf"))
    with _lock:
        _keep(key, mask)
    return mask


def _keep(key: Key, mask: Tensor) -> None:
    """Keep a mask that fits, in place of those unused for longest; one that does not fit by itself takes no other's place."""
    if mask.nbytes > KEPT_BYTES:
        return
    _kept[key] = mask
    total = sum(each.nbytes for each in _kept.values())
    while total > KEPT_BYTES or len(_kept) > KEPT:
        total -= _kept.popitem(last=False)[1].nbytes
