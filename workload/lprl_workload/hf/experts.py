"""Routed experts on fused 3-D weights: one matrix product per expert that got tokens, FP8 activations where the format has them.

transformers dispatches `config._experts_implementation` to a registered function; ours differs from its loop in that it reads
every expert's weight through one `unbind` (indexing the fused parameter per expert makes the backward pass write a full-size
zero gradient for each), adds up a token's experts in a fixed order, and can fake-quantise activations.

Legend: S = tokens x experts per token, H hidden, F expert width, E experts.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS, _default_apply_gate

from lprl_workload.hf.activations import fake_quantize_activations

EXPERTS = "lprl"
GATE_UP_GROUP = "lprl_gate_up_activation_group"
DOWN_GROUP = "lprl_down_activation_group"
ROWS_APART = "lprl_rows_apart"
MIN_ROWS = 4
"""Rows of a CPU matrix product below which its kernel is another one, and a row's result differs in the last bit."""


def register_experts() -> None:
    """Make `experts_implementation="lprl"` known to transformers; repeating it changes nothing."""
    ALL_EXPERTS_FUNCTIONS.register(EXPERTS, experts_forward)


def are_usual(model: nn.Module) -> bool:
    """Return whether all experts that transformers lets us compute are act(gate) * up on matrices [experts, out, in] without biases."""
    return all(_is_usual(module) for module in model.modules() if hasattr(module, "has_gate") and hasattr(module, "is_concatenated"))


def uses_ours(experts: Any) -> bool:
    """Return whether a module of experts is computed by `experts_forward`."""
    config = getattr(experts, "config", None)
    return hasattr(experts, "is_concatenated") and getattr(config, "_experts_implementation", None) == EXPERTS


def _is_usual(experts: Any) -> bool:
    other = experts.has_bias or experts.is_transposed or getattr(experts, "has_post_expert_norm", False)
    return experts.has_gate and experts.is_concatenated and not other and type(experts)._apply_gate is _default_apply_gate


def keep_rows_apart(model: nn.Module) -> None:
    """Have experts compute each row as they do in any company, in place: for a model that serves (see rollout/scheduler.py)."""
    for module in model.modules():
        if hasattr(module, "gate_up_proj") and hasattr(module, "down_proj"):
            setattr(module, ROWS_APART, True)


def experts_forward(module: nn.Module, hidden_TH: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
    """Return the weighted sum of each token's experts, [T, H].

    Args:
        module: transformers' experts module with gate_up_proj [E, 2F, H] and down_proj [E, H, F].
        hidden_TH: [T, H].
        top_k_index: chosen experts, [T, k].
        top_k_weights: their weights, [T, k].

    """
    tokens, k = top_k_index.shape
    gate_up: Tensor = module.gate_up_proj  # type: ignore[assignment]
    down: Tensor = module.down_proj  # type: ignore[assignment]
    # index_select, not x[i]: on a CPU the backward of indexing adds duplicates in thread order, index_add in index order.
    # Stable, so that a token's rows keep one order whatever else is in the batch.
    expert_S, order_S = torch.sort(top_k_index.reshape(-1), stable=True)
    counts = torch.bincount(expert_S, minlength=gate_up.shape[0])
    x_SH = fake_quantize_activations(hidden_TH, getattr(module, GATE_UP_GROUP, None)).index_select(0, order_S // k)
    apart = getattr(module, ROWS_APART, False)
    gate, up = _grouped_linear(x_SH, gate_up, counts, apart).chunk(2, dim=-1)
    y_SF = fake_quantize_activations(module.act_fn(gate) * up, getattr(module, DOWN_GROUP, None))  # type: ignore[operator]
    y_SH = _grouped_linear(y_SF, down, counts, apart)
    back_S = torch.empty_like(order_S)
    back_S[order_S] = torch.arange(order_S.numel(), device=order_S.device)
    weighted = y_SH.index_select(0, back_S).view(tokens, k, -1) * top_k_weights.unsqueeze(-1)
    return weighted.sum(dim=1).to(hidden_TH.dtype)


def _grouped_linear(x_SK: Tensor, weight_ENK: Tensor, counts_E: Tensor, apart: bool) -> Tensor:
    """Return rows of x times their expert's weight, [S, N]; rows are sorted by expert, `counts_E` of each."""
    if x_SK.is_cuda and x_SK.dtype == torch.bfloat16 and not (x_SK.shape[1] % 8 or weight_ENK.shape[1] % 8):
        offsets = counts_E.cumsum(0, dtype=torch.int32)
        return torch.nn.functional.grouped_mm(x_SK, weight_ENK.transpose(-2, -1), offs=offsets)
    counts: list[int] = counts_E.tolist()
    parts = zip(torch.split(x_SK, counts), torch.unbind(weight_ENK), strict=True)
    linear = _linear_apart if apart else nn.functional.linear
    return torch.cat([linear(x, w) for x, w in parts if x.shape[0]])


def _linear_apart(x_SK: Tensor, weight_NK: Tensor) -> Tensor:
    """Return x times the weight, the same for a row whether it comes alone or with others."""
    missing = MIN_ROWS - x_SK.shape[0]
    if missing <= 0:
        return nn.functional.linear(x_SK, weight_NK)
    return nn.functional.linear(nn.functional.pad(x_SK, (0, 0, 0, missing)), weight_NK)[: x_SK.shape[0]]
