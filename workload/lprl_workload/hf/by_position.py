"""What an attention layer computes by absolute positions (Llama 4): chunks that end what a token sees, and temperatures of long texts.

transformers' class takes both from the shape of a pass: its masks from columns, its temperatures from how many tokens went before in the
whole batch. Here rows stand at positions of their own, so both come from `position_ids`, and the class's own temperature is off.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

TEMPERATURE, POSITIONS = "lprl_temperature", "lprl_positions"
"""Attributes of attention layers: the one they have, and where the tokens of the running pass stand, [B, Q]."""


@dataclass(frozen=True, slots=True)
class Temperature:
    """Queries at position p are multiplied by 1 + scale * log(1 + floor((p + 1) / floor))."""

    floor: float
    scale: float

    def factor(self, positions: Tensor) -> Tensor:
        """Return the factors [B, 1, Q, 1], float32, of positions [B, Q]."""
        return (torch.log1p(torch.floor((positions.float() + 1.0) / self.floor)) * self.scale + 1.0)[:, None, :, None]


def take_temperatures(model: nn.Module) -> None:
    """Take temperatures out of the attention of a model that has them, in place; `tempered` applies them."""
    for layer in model.modules():
        attention: Any = getattr(layer, "self_attn", None)
        if getattr(attention, "attn_temperature_tuning", False) and not getattr(attention, "use_rope", True):
            setattr(attention, TEMPERATURE, Temperature(attention.floor_scale, attention.attn_scale))
            attention.attn_temperature_tuning = False
            # The layer is told positions, its attention is not.
            layer.register_forward_pre_hook(_hand_positions, with_kwargs=True)


def _hand_positions(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    setattr(module.self_attn, POSITIONS, kwargs["position_ids"])


def tempered(module: nn.Module, query: Tensor) -> Tensor:
    """Return queries [B, h, Q, d] at the temperature of their positions."""
    temperature: Temperature | None = getattr(module, TEMPERATURE, None)
    if temperature is None:
        return query
    return (query * temperature.factor(getattr(module, POSITIONS))).to(query.dtype)


def chunk_of(module: nn.Module) -> int | None:
    """Return the tokens of a chunk beyond which a layer's tokens see nothing; None for other layers."""
    config: Any = getattr(module, "config", None)
    kinds, layer = getattr(config, "layer_types", None), getattr(module, "layer_idx", None)
    if not kinds or layer is None or kinds[layer] != "chunked_attention":
        return None
    return int(config.attention_chunk_size)


def last_chunk(mask: Tensor, chunk: int) -> Tensor:
    """Return a mask [B, 1, 1, K] that leaves of the first columns a row sees those of its newest token's chunk."""
    newest = (mask == 0).sum(-1, keepdim=True) - 1
    return mask.masked_fill(torch.arange(mask.shape[-1], device=mask.device) < newest // chunk * chunk, float("-inf"))
