"""INT4 on a GPU: groups of any number of weights in one launch."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lprl_workload.quant.batch import Seen
from lprl_workload.quant.triton import int4_kernels
from lprl_workload.quant.triton.launch import EXACT, KINDS, Launch, Plan, matrices_of, on, plan, source_of
from lprl_workload.quant.triton.work import Class, How, Matrix, Tile

PER_WORD = 8


@dataclass(frozen=True, slots=True)
class Config:
    """What launches are tuned by; benchmarks/gpu/kernels.py measures others."""

    tile: int = 4096
    """Weights a program takes."""
    warps: int = 2
    stats_warps: int = 4


CONFIG = Config()


def quantize(
    weights: Sequence[Tensor], group: int, both: bool, stats: bool = False, config: Config = CONFIG
) -> tuple[list[tuple[Tensor, Tensor]], Seen]:
    """Return (packed int32 [..., N, K/8], scale bfloat16 [..., N, K/group]) of weights of one device, and what was seen of their matrices.

    Args:
        weights: each [..., N, K]; `group` divides K.
        group: columns that share a scale, a power of two.
        both: whether a group may have codes of -8 (grid `source`).
        stats: whether `Seen` holds the squares.
        config: of the launches.

    Raises ValueError for dtypes that are no weights'.

    """
    parts, made = plan_codes(weights, group, both, stats, config)
    made.go()
    return parts, made.seen()


def plan_codes(
    weights: Sequence[Tensor], group: int, both: bool, stats: bool = False, config: Config = CONFIG
) -> tuple[list[tuple[Tensor, Tensor]], Plan]:
    """Return the tensors that `quantize` returns, to be filled by the plan."""
    sources = [source_of(weight) for weight in weights]
    parts, matrices = [], []
    for source in sources:
        *batch, rows, cols = source.shape
        packed = torch.empty(*batch, rows, cols // PER_WORD, dtype=torch.int32, device=source.device)
        scale = torch.empty(*batch, rows, cols // group, dtype=torch.bfloat16, device=source.device)
        parts.append((packed, scale))
        matrices += matrices_of(source, packed, rows * cols // 2, scale, 2 * rows * cols // group)
    return parts, _plan(sources, matrices, group, both, stats, 0, config)


def values(weights: Sequence[Tensor], group: int, both: bool, config: Config = CONFIG) -> tuple[list[Tensor], Seen]:
    """Return what an engine computes with, bfloat16, of weights [..., N, K] of one device; see `quantize`."""
    found, made = plan_values(weights, group, both, config)
    made.go()
    return found, made.seen()


def plan_values(weights: Sequence[Tensor], group: int, both: bool, config: Config = CONFIG) -> tuple[list[Tensor], Plan]:
    """Return the tensors that `values` returns, to be filled by the plan."""
    sources = [source_of(weight) for weight in weights]
    found, matrices = [], []
    for source in sources:
        found.append(torch.empty(source.shape, dtype=torch.bfloat16, device=source.device))
        matrices += matrices_of(source, found[-1], 2 * source.shape[-2] * source.shape[-1], None, 0)
    return found, _plan(sources, matrices, group, both, False, 2, config)


def dequantize(packed: Tensor, scale: Tensor) -> Tensor:
    """Return bf16((nibble - 8) * scale) [N, K] of packed int32 [N, K/8] and scale [N, groups] of any float dtype; groups divide K/8."""
    rows, words = packed.shape
    out = torch.empty(rows, words * PER_WORD, dtype=torch.bfloat16, device=packed.device)
    kind = scale.contiguous() if scale.dtype in KINDS else scale.float().contiguous()
    count, chunk = rows * words, 1024
    with on(packed.device):
        launch = int4_kernels.int4_values[(-(-count // chunk),)]
        launch(packed.contiguous(), kind, out, count, words // scale.shape[1], chunk, num_warps=4, **EXACT)
    return out


def _plan(sources: Sequence[Tensor], matrices: Sequence[Matrix], group: int, both: bool, stats: bool, value: int, config: Config) -> Plan:
    # Groups lie end to end: a weight is one row of them, whatever its shape.
    flat = [m._replace(rows=m.rows * m.cols // group, cols=group) for m in matrices]
    unit: tuple[How, Tile] = ("groups", (max(1, config.tile // group), group))

    def programs(matrix: Matrix, kind: Class) -> int:
        return -(-matrix.rows // kind.unit[0])

    def start(launch: Launch) -> None:
        kind = launch.kind
        compiled = (launch.how, *kind.unit, kind.kind, both, stats, value, kind.even, kind.aligned)
        int4_kernels.int4_groups[(launch.programs,)](
            *launch.found, launch.bad, launch.partial, *compiled, num_warps=config.stats_warps if stats else config.warps, **EXACT
        )

    return plan(sources, flat, [unit] * len(flat), programs, stats, start)
