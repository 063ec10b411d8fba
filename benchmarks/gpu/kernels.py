"""The quantizer's Triton kernels on a GPU: GB/s as a share of a copy of the same bytes in the same run, and who else does it how fast.

    python -m benchmarks.gpu.kernels --out FILE.json [--sweep] [--only PART]... [--warm]

Shapes: `dense` one weight 4096 x 12288; `experts` 128 separately allocated weights 1536 x 2048; `unequal` 128 of 1536 x 2048 with 128 of
2048 x 768, as a layer's experts are. Bytes count what is read and written. Several copies of the data take turns, so that none is in the
cache. `call` is a whole call of the quantizer from Python, one after another; the other figures are kernels alone, as a CUDA graph.
Beside it: the same formula in PyTorch, that under torch.compile, and TransformerEngine's quantiser where it is installed.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lprl_workload.quant import int4_group
from lprl_workload.quant.triton import fp8, int4, sums

SHAPES: dict[str, list[tuple[int, int]]] = {
    "dense": [(4096, 12288)],
    "experts": [(1536, 2048)] * 128,
    "unequal": [shape for _ in range(128) for shape in ((1536, 2048), (2048, 768))],
}
TURNS = {"dense": 4, "experts": 2, "unequal": 2}
BLOCK = (128, 128)
REPEATS = 25
Results = dict[str, Any]


def weights(name: str) -> list[list[Tensor]]:
    generator = torch.Generator("cuda").manual_seed(0)

    def one(shape: tuple[int, int]) -> Tensor:
        return torch.randn(shape, generator=generator, device="cuda", dtype=torch.bfloat16) * 0.02

    return [[one(shape) for shape in SHAPES[name]] for _ in range(TURNS[name])]


def median_ms(action: Callable[[], object], count: int, repeats: int = REPEATS) -> float:
    """Milliseconds of one of the `count` things that `action` does."""
    for _ in range(2):
        action()
    torch.cuda.synchronize()
    times = []
    for _ in range(repeats):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        action()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / count)
    return statistics.median(times)


def graph_ms(turns: Sequence[Callable[[], object]]) -> float:
    """Milliseconds of a turn's kernels, without Python between them."""
    for turn in turns:
        turn()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for turn in turns:
            turn()
    return median_ms(graph.replay, len(turns))


class Table:
    """Figures of one shape."""

    def __init__(self, name: str, found: Results, repeats: int) -> None:
        self.name, self.found, self.repeats = name, found.setdefault(name, {}), repeats
        self.turns = weights(name)
        self.count = sum(rows * cols for rows, cols in SHAPES[name])
        self._copies: dict[int, float] = {}

    def copy(self, nbytes: int) -> float:
        """GB/s of a copy that reads and writes `nbytes` in all."""
        if nbytes not in self._copies:
            pairs = [
                (
                    torch.empty(nbytes // 2, dtype=torch.uint8, device="cuda"),
                    torch.empty(nbytes // 2, dtype=torch.uint8, device="cuda").random_(),
                )
                for _ in self.turns
            ]
            turns = [lambda p=p: p[0].copy_(p[1]) for p in pairs]
            # The faster of two ways to ask for it: a graph's copies of more than 2 GB are slow.
            ms = min(graph_ms(turns), median_ms(lambda: [turn() for turn in turns], len(turns)))
            self._copies[nbytes] = nbytes / ms / 1e6
        return self._copies[nbytes]

    def note(self, key: str, ms: float, nbytes: int) -> None:
        """Keep and print a figure."""
        rate, copy = nbytes / ms / 1e6, self.copy(nbytes)
        self.found[key] = {"ms": round(ms, 4), "GBps": round(rate), "copy_GBps": round(copy), "share": round(rate / copy, 3)}
        print(f"{self.name:8} {key:44} {ms:8.4f} ms {rate:6.0f} GB/s {100 * rate / copy:5.1f} %", flush=True)

    def kernels(self, key: str, plans: Sequence[Any], nbytes: int) -> None:
        """Note kernels alone."""
        self.note(key, graph_ms([p.go for p in plans]), nbytes)

    def loop(self, key: str, action: Callable[[list[Tensor]], object], nbytes: int) -> None:
        """Note calls from Python."""

        def turns() -> None:
            for turn in self.turns:
                action(turn)

        self.note(key, median_ms(turns, len(self.turns), self.repeats), nbytes)


def fp8_part(table: Table, sweep: bool) -> None:
    codes, values = 3 * table.count, 4 * table.count
    tiles = [BLOCK] * len(table.turns[0])
    for warps in (2, 4, 8) if sweep else (0,):
        config = fp8.Config(warps=(warps, warps), stats_warps=warps) if sweep else fp8.CONFIG
        for stats in (False, True):
            made = [fp8.plan_codes(turn, tiles, False, stats, config) for turn in table.turns]
            table.kernels(f"fp8 block{f', {warps} warps' if sweep else ''}{', errors' if stats else ''}", [m[1] for m in made], codes)
        made = [fp8.plan_values(turn, tiles, False, torch.bfloat16, config) for turn in table.turns]
        table.kernels(f"fp8 block fake to bf16{f', {warps} warps' if sweep else ''}", [m[1] for m in made], values)
    made = [fp8.plan_values(turn, tiles, False) for turn in table.turns]
    table.kernels("fp8 block fake to float32", [m[1] for m in made], 6 * table.count)
    made = [fp8.plan_codes(turn, tiles, True) for turn in table.turns]
    table.kernels("fp8 block ue8m0", [m[1] for m in made], codes)
    for rows in ((4, 1024), (1, 4096), (2, 2048)) if sweep else (fp8.CONFIG.rows,):
        made = [fp8.plan_codes(turn, [(1, w.shape[1]) for w in turn], False, False, fp8.Config(rows=rows)) for turn in table.turns]
        table.kernels(f"fp8 channel, {rows[0]} x {rows[1]}", [m[1] for m in made], codes)
    table.loop("fp8 tensor (two passes, from Python)", lambda turn: fp8.quantize(turn, [tuple(w.shape) for w in turn], False), codes)
    table.loop("fp8 block, call", lambda turn: fp8.quantize(turn, tiles, False), codes)
    table.loop("fp8 block, call with errors", lambda turn: fp8.quantize(turn, tiles, False, stats=True), codes)


def int4_part(table: Table, sweep: bool) -> None:
    for group in (128, 64, 32):
        codes = table.count * 5 // 2 + 2 * table.count // group
        tried = (
            [(tile, warps) for tile in (2048, 4096, 8192) for warps in (2, 4, 8)]
            if sweep and group != 64
            else [(int4.CONFIG.tile, int4.CONFIG.warps)]
        )
        for tile, warps in tried:
            config = int4.Config(tile, warps, warps) if sweep else int4.CONFIG
            for stats in (False, True):
                made = [int4.plan_codes(turn, group, False, stats, config) for turn in table.turns]
                table.kernels(
                    f"int4 g{group}{f', {tile}, {warps} warps' if sweep else ''}{', errors' if stats else ''}", [m[1] for m in made], codes
                )
            made = [int4.plan_values(turn, group, False, config) for turn in table.turns]
            table.kernels(f"int4 g{group} fake{f', {tile}, {warps} warps' if sweep else ''}", [m[1] for m in made], 4 * table.count)
    parts, _ = int4.quantize(table.turns[0][:1], 128, False)
    one = table.turns[0][0].numel()
    table.note(
        "int4 g128 dequantise, one weight", median_ms(lambda: [int4.dequantize(*parts[0]) for _ in range(10)], 10), one * 5 // 2 + one // 64
    )
    table.loop("int4 g128, call", lambda turn: int4.quantize(turn, 128, False), table.count * 5 // 2 + table.count // 64)


def sums_part(table: Table, sweep: bool) -> None:
    table.loop("checksum of bf16, call", lambda turn: sums.checksums([(w, w.shape, [0, 0]) for w in turn]), 2 * table.count)
    codes = [[torch.empty(w.shape, dtype=torch.uint8, device="cuda").random_() for w in turn] for turn in table.turns[:1]]
    table.note("checksum of fp8, call", median_ms(lambda: sums.checksums([(w, w.shape, [0, 0]) for w in codes[0]]), 1), table.count)


def plain_fp8(weight: Tensor) -> tuple[Tensor, Tensor]:
    n, k = weight.shape
    x = weight.view(n // 128, 128, k // 128, 128).float()
    absmax = x.abs().amax(dim=(1, 3), keepdim=True)
    qscale = torch.div(torch.full_like(absmax, 448.0), absmax)
    return (x * qscale).to(torch.float8_e4m3fn).view(n, k), torch.reciprocal(qscale)


def plain_int4(weight: Tensor) -> tuple[Tensor, Tensor]:
    q, scale = int4_group_plain(weight)
    return int4_group.pack(q), scale


def int4_group_plain(weight: Tensor) -> tuple[Tensor, Tensor]:
    x = weight.float().view(weight.shape[0], -1, 128)
    absmax = x.abs().amax(dim=-1, keepdim=True)
    scale = torch.div(absmax, torch.full_like(absmax, 7.0)).clamp(min=1e-5).to(torch.bfloat16)
    q = (x * torch.reciprocal(scale.float())).round().clamp(-7, 7).to(torch.int8)
    return q.flatten(-2), scale


def fake_int4(weight: Tensor) -> Tensor:
    q, scale = int4_group_plain(weight)
    return int4_group.dequantize_int4(q, scale.squeeze(-1))


def others_part(table: Table, sweep: bool) -> None:
    """PyTorch and torch.compile, weight by weight; a stack for compile, which has no list."""
    if table.name != "dense":
        return
    ways = {
        "fp8 block": (plain_fp8, 3 * table.count),
        "int4 g128": (plain_int4, table.count * 5 // 2 + table.count // 64),
        "int4 g128 fake": (fake_int4, 4 * table.count),
    }
    for name, (way, nbytes) in ways.items():
        table.loop(f"{name}, PyTorch", lambda turn, way=way: [way(w) for w in turn], nbytes)
        compiled = torch.compile(way)
        table.loop(f"{name}, torch.compile", lambda turn, way=compiled: [way(w) for w in turn], nbytes)


def te_part(table: Table, sweep: bool) -> None:
    try:
        import transformer_engine.pytorch  # noqa: F401
        import transformer_engine_torch as tex
        from transformer_engine.pytorch.tensor.float8_blockwise_tensor import Float8BlockQuantizer
    except ImportError as error:
        table.found["transformer_engine"] = f"not here: {error}"
        return
    settings = {"rowwise": True, "columnwise": False, "block_scaling_dim": 2, "force_pow_2_scales": False, "amax_epsilon": 0.0}
    quantizer = Float8BlockQuantizer(fp8_dtype=tex.DType.kFloat8E4M3, **settings)
    table.loop("fp8 block, TransformerEngine", lambda turn: [quantizer(w) for w in turn], 3 * table.count)
    quantizer.set_usage(rowwise=True, columnwise=False)
    differ = [0, 0]
    for weight in table.turns[0][:8]:
        theirs = quantizer(weight).get_metadata()
        ((codes, scale),), _ = fp8.quantize([weight], [BLOCK], False)
        stored = theirs["rowwise_scale_inv"][:, : scale.shape[1]]
        differ[0] += int((theirs["rowwise_data"].view(torch.uint8) != codes.view(torch.uint8)).sum())
        differ[1] += int((stored != scale).sum())
    table.found["bytes and scales that differ from TransformerEngine's"] = differ
    print(table.name, "bytes and scales that differ from TransformerEngine's:", differ, flush=True)


PARTS: dict[str, Callable[[Table, bool], None]] = {
    "fp8": fp8_part,
    "int4": int4_part,
    "sums": sums_part,
    "te": te_part,
    "others": others_part,
}


def main(argv: Sequence[str] | None = None) -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--sweep", action="store_true", help="other settings of the launches too")
    options.add_argument("--only", action="append", choices=PARTS, help="a part; several times for several")
    options.add_argument("--shapes", action="append", choices=SHAPES)
    options.add_argument("--warm", action="store_true", help="compile everything, measure little")
    given = options.parse_args(argv)
    found: Results = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__}
    began = time.monotonic()
    if not given.warm:
        big = torch.empty(4 << 30, dtype=torch.uint8, device="cuda").random_()
        there = torch.empty_like(big)
        found["copy of 4 GiB, GB/s"] = round(2 * big.numel() / median_ms(lambda: there.copy_(big), 1, 10) / 1e6)
        print("copy of 4 GiB:", found["copy of 4 GiB, GB/s"], "GB/s", flush=True)
        del big, there
    global REPEATS
    REPEATS = 1 if given.warm else REPEATS
    for name in given.shapes or SHAPES:
        table = Table(name, found, REPEATS)
        for part in given.only or PARTS:
            try:
                PARTS[part](table, given.sweep)
            except Exception as error:  # whatever a kernel can say: figures of the other parts must not be lost with it
                table.found[f"{part} failed"] = str(error)
                print(name, part, "failed:", error, flush=True)
            given.out.write_text(json.dumps(found, indent=1))
        del table
        torch.cuda.empty_cache()
    print(f"{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
