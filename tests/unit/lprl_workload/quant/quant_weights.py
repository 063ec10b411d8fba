"""Hypothesis strategies for weights: any finite BF16 bit pattern, mixed with the regimes that break quantizers."""

import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from torch import Tensor

from lprl_api.model import formats
from lprl_api.model.formats import Fp8Block, Fp8Channel, Fp8Tensor, Int4Group

FORMATS = (
    Fp8Block(),
    Fp8Block(scale_format="ue8m0"),
    Fp8Block(block_size=(4, 16)),
    Fp8Channel(),
    Fp8Tensor(),
    Int4Group(group_size=32),
    Int4Group(group_size=64),
    Int4Group(group_size=128),
    Int4Group(group_size=32, grid="source"),
)
FORMATS += tuple(fmt() for kind, fmt in formats.FORMATS.items() if kind != "bf16" and kind not in {known.kind for known in FORMATS})
examples = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


def fill(kind: str, rows: int, cols: int, seed: int) -> Tensor:
    """A bfloat16 [rows, cols] of one kind."""
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(rows, cols, generator=generator)
    match kind:
        case "normal":
            x = normal * 0.02
        case "zeros":
            x = torch.zeros(rows, cols)
        case "negative-zeros":
            x = -torch.zeros(rows, cols)
        case "sparse":
            x = normal * (torch.rand(rows, cols, generator=generator) < 0.02)
        case "denormal":
            x = normal * 1e-39
        case "tiny":
            x = normal * 1e-36
        case "huge":
            x = (normal * 1e37).clamp(-3e38, 3e38)
        case "one-outlier":
            x = normal * 1e-3
            x[rows // 2, cols // 2] = 3e4
        case "powers":
            x = torch.sign(normal) * torch.exp2(torch.randint(-20, 20, (rows, cols), generator=generator).float())
        case "ties":
            # Multiples of half a code step, so that round-half-even decides.
            x = torch.randint(-15, 16, (rows, cols), generator=generator) * 0.5
        case "bits":
            bits = torch.randint(-(2**15), 2**15, (rows, cols), generator=generator, dtype=torch.int32).to(torch.int16)
            x = torch.nan_to_num(bits.view(torch.bfloat16).float(), nan=1.0, posinf=1.0, neginf=-1.0).clamp(-3e38, 3e38)
    return x.to(torch.bfloat16)


KINDS = ("normal", "zeros", "negative-zeros", "sparse", "denormal", "tiny", "huge", "one-outlier", "powers", "ties", "bits")


@st.composite
def weights(draw: st.DrawFn, multiple: int = 1) -> Tensor:
    """A bfloat16 [N, K] with K a multiple of `multiple`: ragged against every block size of FORMATS."""
    rows = draw(st.one_of(st.integers(1, 40), st.sampled_from([127, 128, 129, 200, 256])))
    cols = draw(st.one_of(st.integers(1, 300 // multiple), st.just(1))) * multiple
    return fill(draw(st.sampled_from(KINDS)), rows, cols, draw(st.integers(0, 2**31)))


def columns_of(fmt: formats.Format) -> int:
    """What K must be a multiple of."""
    return fmt.unit[1] if fmt.misfit(1) else 1


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Equal in dtype, shape and every bit, signs of zeros included."""
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8))
