"""Products with quantised weights as our torch engine computes them: the quantizer's own values, float32 sums.

Legend: T tokens, k experts per token, H hidden, F expert width, N,K rows,cols of a weight.
"""

from collections.abc import Callable

from torch import Tensor
from torch.nn.functional import linear, silu

from lprl_workload.hf.activations import fake_quantize_activations

Weights = Callable[[int], tuple[Tensor, Tensor]]
"""Local expert -> its (gate_up [2F, H], down [H, F]) as an engine computes with them."""


def product(x: Tensor, weight: Tensor, bias: Tensor | None, group: int | None) -> Tensor:
    """Return x [..., K] times weight [N, K] plus bias in x's dtype; `group`: of FP8 activations (Format.activation_group)."""
    out = linear(fake_quantize_activations(x, group).float(), weight.float()).to(x.dtype)
    return out if bias is None else out + bias


def experts(x: Tensor, ids: Tensor, shares: Tensor, weights: Weights, group: int | None) -> Tensor:
    """Return the weighted sum of each token's experts, [T, H] in x's dtype.

    Args:
        x: [T, H].
        ids: chosen experts, [T, k]; below 0: another rank's.
        shares: their weights, [T, k].
        weights: of each expert.
        group: of FP8 activations.

    """
    seen = fake_quantize_activations(x, group)
    out = x.new_zeros((*ids.shape, x.shape[-1]))
    for expert in sorted(set(ids.flatten().tolist())):
        if expert < 0:
            continue
        rows, slots = (ids == expert).nonzero(as_tuple=True)
        gate_up, down = weights(expert)
        gate, up = product(seen[rows], gate_up, None, None).chunk(2, dim=-1)
        out[rows, slots] = product(silu(gate) * up, down, None, group)
    return (out * shares.unsqueeze(-1).to(out.dtype)).sum(dim=1)
