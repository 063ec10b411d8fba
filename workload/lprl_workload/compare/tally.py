"""How far one model's next-token distributions are from another's, added up position by position."""

import math

import torch
from torch import Tensor

from lprl_api.errors import UserError
from lprl_api.wire.answers import Distance


class Tally:
    """Sums over positions: float32 logarithms, float64 sums."""

    def __init__(self) -> None:
        """Start with no position."""
        self._kl: list[Tensor] = []
        self._agreed = 0
        self._nll = torch.zeros(2, dtype=torch.float64)

    def add(self, reference: Tensor, other: Tensor, targets: Tensor) -> None:
        """Add positions.

        Args:
            reference: float32 log-probabilities of the source [P, V].
            other: the same of the other model.
            targets: the text's own next token, int64 [P].

        """
        kl = (reference.exp() * (reference - other)).sum(dim=-1, dtype=torch.float64)
        self._kl.append(kl.clamp_min(0).cpu())
        self._agreed += int((reference.argmax(dim=-1) == other.argmax(dim=-1)).sum())
        chosen = [-p.gather(1, targets.unsqueeze(1)).sum(dtype=torch.float64).cpu() for p in (reference, other)]
        self._nll += torch.stack(chosen)

    def distance(self) -> Distance:
        """Return the means and percentiles over all positions added; there must be one. Raises UserError where they are no numbers."""
        kl = torch.cat(self._kl)
        if not bool(kl.isfinite().all() and self._nll.isfinite().all()):
            which = "the source's" if not math.isfinite(float(self._nll[0])) else "the converted model's"
            what = f"answers: {which} log-probabilities are NaN or infinite at {int((~kl.isfinite()).sum())} of {len(kl)} positions"
            raise UserError(what, "take weights that compute finite numbers: download them again, or an earlier checkpoint")
        nll = (self._nll / len(kl)).tolist()
        return Distance(
            positions=len(kl),
            kl_mean=float(kl.mean()),
            kl_p50=_percentile(kl, 50),
            kl_p99=_percentile(kl, 99),
            top1_agreement=self._agreed / len(kl),
            nll_source=nll[0],
            nll_converted=nll[1],
            nll_change=nll[1] - nll[0],
        )


def _percentile(values: Tensor, percent: int) -> float:
    """Return the smallest value that at least `percent` of the values do not exceed."""
    return float(values.kthvalue(max(1, -(-len(values) * percent // 100))).values)
