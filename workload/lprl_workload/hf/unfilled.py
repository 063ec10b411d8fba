"""Building models whose weights come from somewhere else."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers.initialization import no_init_weights


@contextmanager
def unfilled(device: torch.device | str) -> Iterator[None]:
    """Have models made on `device`, weights uninitialised, and torch's generators left as they are.

    Some classes draw while they are made (linear attention its decays), and when a reference is made first says nothing of a run:
    what is drawn later must not depend on it.
    """
    on = torch.device(device)
    with torch.random.fork_rng([on] if on.type == "cuda" else []), no_init_weights(), on:
        yield
