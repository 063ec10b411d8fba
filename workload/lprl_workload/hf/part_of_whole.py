"""A language model that transformers has no class of its own for, taken out of the whole model it is a part of (Qwen-VL, GLM-V)."""

from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from lprl_api.errors import UserError
from lprl_workload.folder.class_layout import ClassLayout
from lprl_workload.hf.unfilled import unfilled


class PartOfWhole(nn.Module):
    """Decoder and head under the names a causal language model has: `model` and `lm_head`. Towers and projectors are gone."""

    def __init__(self, decoder: Any, head: nn.Module) -> None:
        super().__init__()
        self.model = decoder
        self.lm_head = head
        self.config = decoder.config

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        found: torch.dtype = self.lm_head.weight.dtype  # type: ignore[assignment]
        return found

    def forward(self, input_ids: Tensor, use_cache: bool = False) -> SimpleNamespace:
        """Return an object with `logits` [B, T, V]."""
        hidden = self.model(input_ids=input_ids, use_cache=use_cache).last_hidden_state
        return SimpleNamespace(logits=self.lm_head(hidden))

    def set_attn_implementation(self, name: str) -> None:
        """Have every layer attend by a registered function."""
        self.model.set_attn_implementation(name)

    def set_experts_implementation(self, name: str) -> None:
        """Have experts computed by a registered function, or by the class (`eager`)."""
        self.model.set_experts_implementation(name)

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: Mapping[str, Any]) -> None:
        """Recompute activations of decoder layers while training."""
        self.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=gradient_checkpointing_kwargs)

    def tie_weights(self) -> None:
        """The whole model tied them when it was made."""


def part_of_whole(model_class: Any, config: Any, layout: ClassLayout, device: torch.device | str, **how: Any) -> tuple[Any, ClassLayout]:
    """Return a whole model's language model, weights uninitialised, and its part of the whole's checkpoint, under the whole's names.

    Raises UserError for a class that does not say which part it is.
    """
    with unfilled(device):
        whole = model_class._from_config(config, **how)
    whole.tie_weights()
    decoder, head = whole.get_decoder(), whole.get_output_embeddings()
    found = {name for name, module in whole.named_modules() if module is decoder}
    heads = {name for name, module in whole.named_modules() if module is head}
    if decoder is whole or not found or not heads or not hasattr(decoder, "layers"):
        raise UserError(f"{model_class.__name__} does not say which part of it is the language model", "train a language model of its own")
    names = {f"{min(found)}.": "model.", f"{min(heads)}.": "lm_head."}
    return PartOfWhole(decoder, head), _within(layout, names)


def _within(layout: ClassLayout, names: Mapping[str, str]) -> ClassLayout:
    """Return the part of a layout whose parameters begin with one of `names`, called what stands there."""

    def called(parameter: str) -> str | None:
        return next((own + parameter.removeprefix(whole) for whole, own in names.items() if parameter.startswith(whole)), None)

    views = {name: replace(view, parameter=own) for name, view in layout.views.items() if (own := called(view.parameter)) is not None}
    parameters = {own: found for name, found in layout.parameters.items() if (own := called(name)) is not None}
    unclear = {name: why for name, why in layout.unclear.items() if any(name.startswith(whole) for whole in names)}
    return replace(layout, views=views, parameters=parameters, unclear=unclear)
