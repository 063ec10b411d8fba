"""From hidden states to logits as a model's class does it: most have a head alone, some scale or cap what it gives."""

from typing import Any

from torch import Tensor

BY_CLASS = "lprl_logits_by_class"
"""Attribute of a model whose class is asked; the others have a head alone."""


def logits_of(model: Any, hidden: Tensor) -> Tensor:
    """Return logits [T, V], float32, of the decoder's hidden states [T, H]."""
    if not getattr(model, BY_CLASS, False):
        found: Tensor = model.lm_head(hidden)
        return found
    # Some classes ask how long the text was: the hidden states are as long.
    logits: Tensor = type(model).forward(_Decoded(model, hidden[None]), inputs_embeds=hidden[None], use_cache=False).logits
    return logits[0]


class _Output:
    """What a decoder gives: its hidden states, and None for whatever else a class hands on."""

    def __init__(self, hidden: Tensor) -> None:
        self.last_hidden_state = hidden

    def __getattr__(self, name: str) -> None:
        if name.startswith("_"):
            raise AttributeError(name)

    def __getitem__(self, index: int) -> Tensor:
        return (self.last_hidden_state,)[index]


class _Decoded:
    """A causal model whose decoder has run already: its class's own forward finds the hidden states here and does the rest."""

    def __init__(self, model: Any, hidden: Tensor) -> None:
        self._model, self._hidden = model, hidden

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def model(self, *args: Any, **kwargs: Any) -> _Output:
        """Stand for the decoder."""
        return _Output(self._hidden)
