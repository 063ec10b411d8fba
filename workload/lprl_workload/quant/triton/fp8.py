"""FP8 on a GPU: blocks, channels and whole tensors, any number of weights in one launch."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from lprl_workload.quant.batch import Seen
from lprl_workload.quant.triton import fp8_kernels
from lprl_workload.quant.triton.launch import EXACT, Launch, Plan, matrices_of, plan, row_of, source_of, upload
from lprl_workload.quant.triton.work import Class, How, Matrix, Tile, manner, tiles


@dataclass(frozen=True, slots=True)
class Config:
    """What launches are tuned by; benchmarks/gpu/kernels.py measures others."""

    warps: tuple[int, int] = (4, 8)
    """Of a program, where addresses are looked up and where they are computed."""
    stats_warps: int = 8
    """With errors, or values instead of codes."""
    rows: Tile = (2, 2048)
    """Rows a program takes, and columns of them at a time, by channel."""
    whole: Tile = (64, 256)
    """Rectangle a program takes, by tensor."""


CONFIG = Config()


def quantize(
    weights: Sequence[Tensor], tile_of: Sequence[Tile], pow2: bool, stats: bool = False, config: Config = CONFIG
) -> tuple[list[tuple[Tensor, Tensor]], Seen]:
    """Return (codes [..., N, K], scale_inv [..., n, k]) of weights [..., N, K] of one device, and what was seen of each weight's matrices.

    Args:
        weights: each [N, K] matrix of a batch (experts) on its own.
        tile_of: of each weight, the rectangle that shares a scale; `manner` says which can be done.
        pow2: whether scales are powers of two.
        stats: whether `Seen` holds the squares (a row a matrix, in the order of weights and their leading dimensions).
        config: of the launches.

    Raises ValueError for dtypes that are no weights'.

    """
    parts, made = plan_codes(weights, tile_of, pow2, stats, config)
    made.go()
    return parts, made.seen()


def plan_codes(
    weights: Sequence[Tensor], tile_of: Sequence[Tile], pow2: bool, stats: bool = False, config: Config = CONFIG
) -> tuple[list[tuple[Tensor, Tensor]], Plan]:
    """Return the tensors that `quantize` returns, to be filled by the plan."""
    sources = [source_of(weight) for weight in weights]
    parts, matrices = [], []
    for source, tile in zip(sources, tile_of, strict=True):
        rows, cols = source.shape[-2:]
        codes = torch.empty(source.shape, dtype=torch.float8_e4m3fn, device=source.device)
        grid = (*source.shape[:-2], -(-rows // tile[0]), -(-cols // tile[1]))
        scale = torch.empty(grid, dtype=torch.float32, device=source.device)
        parts.append((codes, scale))
        matrices.append(matrices_of(source, codes, rows * cols, scale, 4 * tiles(rows, cols, tile)))
    return parts, _plan(sources, matrices, tile_of, partial(_start, pow2, stats, 0, config), stats, config)


def values(
    weights: Sequence[Tensor], tile_of: Sequence[Tile], pow2: bool, dtype: torch.dtype = torch.float32, config: Config = CONFIG
) -> tuple[list[Tensor], Seen]:
    """Return what an engine computes with, of weights [..., N, K] of one device, in float32 or rounded to bfloat16; see `quantize`."""
    found, made = plan_values(weights, tile_of, pow2, dtype, config)
    made.go()
    return found, made.seen()


def plan_values(
    weights: Sequence[Tensor], tile_of: Sequence[Tile], pow2: bool, dtype: torch.dtype = torch.float32, config: Config = CONFIG
) -> tuple[list[Tensor], Plan]:
    """Return the tensors that `values` returns, to be filled by the plan."""
    sources = [source_of(weight) for weight in weights]
    found, matrices = [], []
    for source in sources:
        out = torch.empty(source.shape, dtype=dtype, device=source.device)
        found.append(out)
        matrices.append(matrices_of(source, out, source.shape[-2] * source.shape[-1] * out.element_size(), None, 0))
    value = 1 if dtype == torch.float32 else 2
    return found, _plan(sources, matrices, tile_of, partial(_start, pow2, False, value, config), False, config)


def _plan(
    sources: Sequence[Tensor],
    matrices: Sequence[Sequence[Matrix]],
    tile_of: Sequence[Tile],
    start: "partial[None]",
    stats: bool,
    config: Config,
) -> Plan:
    hows: list[tuple[How, Tile]] = []
    for mine, tile in zip(matrices, tile_of, strict=True):
        how = manner(tile, (mine[0].rows, mine[0].cols))
        if how is None:
            raise ValueError(f"no kernel for scales of {tile[0]} x {tile[1]} weights")
        hows += [(how, {"tiles": tile, "rows": config.rows, "whole": config.whole}[how])] * len(mine)
    return plan(sources, [m for mine in matrices for m in mine], hows, _programs, stats, start)


def _programs(matrix: Matrix, kind: Class) -> int:
    return -(-matrix.rows // kind.unit[0]) if kind.how == "rows" else tiles(matrix.rows, matrix.cols, kind.unit)


def _start(pow2: bool, stats: bool, value: int, config: Config, launch: Launch) -> None:
    kind, grid = launch.kind, (launch.programs,)
    if kind.how == "rows":
        settings = (launch.how, *kind.unit, kind.kind, pow2, stats, value, kind.aligned)
        fp8_kernels.fp8_rows[grid](*launch.found, launch.bad, launch.partial, *settings, num_warps=4, **EXACT)
        return
    whole, given = kind.how == "whole", launch.bad
    if whole:
        given = torch.zeros_like(launch.bad)
        _absmax(launch, given)
    large = kind.unit[0] * kind.unit[1] > 4096
    warps = (config.stats_warps if stats or value else config.warps[launch.how == 2]) if large else 1
    compiled = (launch.how, *kind.unit, kind.kind, pow2, whole, stats, value, kind.even, kind.aligned)
    fp8_kernels.fp8_tiles[grid](*launch.found, given, launch.bad, launch.partial, *compiled, num_warps=warps, **EXACT)


def _absmax(launch: Launch, given: Tensor) -> None:
    chunk = launch.kind.unit[0] * launch.kind.unit[1]
    counts = [-(-m.rows * m.cols // chunk) for m in launch.matrices]
    table, owner = upload([row_of(m) for m in launch.matrices], counts, given.device)
    fp8_kernels.absmax_chunks[(sum(counts),)](table, owner, given, chunk, launch.kind.kind, launch.kind.aligned, num_warps=4, **EXACT)
