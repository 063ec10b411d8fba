"""Converts whole shards: plan all, then each shard is streamed aside, fsynced, renamed and reported.

A shard whose report matches (source, format, quantizer, digest of the finished file) is skipped, so a restarted worker
redoes nothing but what was unfinished.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from lprl_api.errors import UserError
from lprl_api.model.formats import Bf16, WeightFormat
from lprl_api.model.model_shape import ModelShape
from lprl_workload.convert.digest import digest_file
from lprl_workload.convert.plan_shard import Piece, Planner
from lprl_workload.convert.progress import Meter, ShardProgress
from lprl_workload.convert.shard_report import REPORTS, ShardReport, TensorReport, read_report, report_path
from lprl_workload.convert.stream import ShardStream
from lprl_workload.convert.writer import ShardWriter, write_atomically
from lprl_workload.folder.config import read_format
from lprl_workload.folder.contents import FolderContents
from lprl_workload.folder.model import read_contents
from lprl_workload.folder.selection import selection_of
from lprl_workload.quant import QUANTIZER_VERSION
from lprl_workload.quant.slab import ErrorSums


def convert_shards(
    source: Path,
    target_partial: Path,
    fmt: WeightFormat,
    shape: ModelShape | None,
    shards: Sequence[str],
    threads: int,
    on_progress: Callable[[ShardProgress], None],
    contents: FolderContents | None = None,
) -> list[ShardReport]:
    """Convert `shards` of the Hugging Face folder `source` into files of the same names in `target_partial`.

    Up to `threads` shards at a time; finished ones are skipped. Output bytes depend on the source's bytes and `fmt` only.
    `shape`: None for a family without a table. `contents` is what the source's model is, where the caller read it.
    Everything is validated before the first byte is written. Reports come back in the order of `shards`.
    Raises UserError naming file or tensor, StorageFullError when the volume is full.
    """
    planner = make_planner(source, fmt, shape, contents)
    plans = {shard: planner.plan(shard) for shard in shards}
    (target_partial / REPORTS).mkdir(parents=True, exist_ok=True)
    sizes = {shard: (source / shard).stat().st_size for shard in shards}
    meter = Meter(sum(sizes.values()), len(shards), on_progress)

    def one(shard: str) -> ShardReport:
        return _convert_shard(planner, shard, plans[shard], target_partial, meter)

    pool_size = max(1, min(threads, len(shards)))
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, threads // pool_size))
    try:
        if pool_size == 1:
            return [one(shard) for shard in shards]
        with ThreadPoolExecutor(pool_size) as pool:
            try:
                return list(pool.map(one, shards))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    finally:
        torch.set_num_threads(before)


def make_planner(source: Path, fmt: WeightFormat, shape: ModelShape | None, contents: FolderContents | None = None) -> Planner:
    """Return the planner of a source folder.

    Raises UserError when it is in `fmt` already, cannot be read, or `fmt` selects nothing or half of what engines run as one.
    """
    source_format = read_format(source)
    if not isinstance(source_format, Bf16) and source_format.kind == fmt.kind and source_format.leaves == fmt.leaves:
        raise UserError(f"{source}: is {source_format.kind} already", "use it as it is, or dequantise it to bf16 first")
    index = contents or read_contents(source)
    planner = Planner(index, source_format, selection_of(fmt, shape, index), shape)
    planner.check_selection()
    return planner


def _convert_shard(planner: Planner, shard: str, pieces: tuple[Piece, ...], target_partial: Path, meter: Meter) -> ShardReport:
    source = planner.index.folder / shard
    before = source.stat()
    found = read_report(target_partial, shard)
    if found is not None and _still_valid(found, planner, source, target_partial):
        meter.finish(shard, skipped_bytes=before.st_size)
        return found
    outputs = [tensor for piece in pieces for tensor in piece.outputs()]
    _check_unique(shard, [tensor.name for tensor in outputs])
    counted = 0

    def on_bytes(count: int) -> None:
        nonlocal counted
        counted += count
        meter.add(shard, count)

    with ShardWriter(target_partial / shard, outputs) as writer, ShardStream(planner.index, shard, writer, on_bytes) as stream:
        tensors = tuple(_tensor_report(piece, stream.convert(piece)) for piece in pieces)
        source_xxh128 = stream.source_digest()
        _check_unchanged(source, before)
        output_blake3 = writer.publish()
    report = ShardReport(
        shard=shard,
        format=planner.selection.fmt,
        quantizer_version=QUANTIZER_VERSION,
        source_bytes=before.st_size,
        source_mtime_ns=before.st_mtime_ns,
        source_xxh128=source_xxh128,
        output=shard,
        output_bytes=writer.size,
        output_blake3=output_blake3,
        weight_map=tuple(sorted(tensor.name for tensor in outputs)),
        data_bytes=sum(tensor.nbytes for tensor in outputs),
        tensors=tensors,
    )
    write_atomically(report_path(target_partial, shard), report.model_dump_json(by_alias=True, indent=1).encode())
    # Header and partner bytes are no piece's: count them now, so that the total is reached.
    meter.add(shard, before.st_size - counted)
    meter.finish(shard)
    return report


def _check_unchanged(source: Path, before: os.stat_result) -> None:
    after = source.stat()
    if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        raise UserError(f"{source}: changed while it was read", "leave the source alone while it is converted, and convert again")


def _still_valid(report: ShardReport, planner: Planner, source: Path, target_partial: Path) -> bool:
    stat, output = source.stat(), target_partial / report.output
    return (
        (report.format, report.quantizer_version) == (planner.selection.fmt, QUANTIZER_VERSION)
        and (report.source_bytes, report.source_mtime_ns) == (stat.st_size, stat.st_mtime_ns)
        and report.output == report.shard == source.name
        and output.is_file()
        and output.stat().st_size == report.output_bytes
        and digest_file(output) == report.output_blake3
    )


def _check_unique(shard: str, names: list[str]) -> None:
    if len(names) != len(set(names)):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise UserError(
            f"shard {shard}: tensors {', '.join(twice[:5])} would be written twice",
            "keep one of the two shards, or the tensors' names apart",
        )


def _tensor_report(piece: Piece, errors: ErrorSums | None) -> TensorReport:
    if errors is None:
        return TensorReport(name=piece.name, format="copied" if piece.copies else "dequantized", shape=piece.shape)
    return TensorReport(
        name=piece.name,
        format=piece.target_format.kind,
        shape=piece.shape,
        relative_rms_error=errors.relative_rms,
        max_abs_error=errors.max_abs_error,
        groups=errors.groups,
        zero_groups=errors.zero_groups,
        clipped_groups=errors.clipped_groups,
        exact_groups=errors.exact_groups,
        squared_error=errors.squared_error,
        squared_weight=errors.squared_weight,
    )
