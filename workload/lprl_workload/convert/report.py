"""conversion_report.json and its table: the error of every tensor, worst first, and of the model as a whole."""

import math
from collections.abc import Sequence
from statistics import median

from lprl_api.base import Contract
from lprl_api.model.formats import WeightFormat
from lprl_workload.convert.disk import human_bytes
from lprl_workload.convert.shard_report import ShardReport, TensorReport
from lprl_workload.quant.error import relative_rms

TABLE_ROWS = 200
SHOWN_ROWS = 3
"""Worst tensors that a command shows after the totals."""


class Totals(Contract):
    """The whole conversion in numbers."""

    shards: int
    tensors: int
    quantized: int
    dequantized: int
    copied: int
    source_bytes: int
    output_bytes: int
    relative_rms_error: float | None
    """Over all quantised weights together, so that a few huge ones decide it; None when nothing was quantised."""
    median_relative_rms_error: float | None = None
    """Of the quantised tensors' own errors: half of them lie below it."""
    exact_groups: int | None = None
    """Scales whose weights are an MXFP4 source's to the last bit; None for other sources."""
    mxfp4_groups: int = 0
    """Scales of what was MXFP4."""
    worst_tensor: str | None
    worst_relative_rms_error: float | None
    max_abs_error: float | None


class ConversionReport(Contract):
    """What a conversion did to every tensor."""

    schema_version: int = 1
    content_key: str
    fingerprint: str
    format: WeightFormat
    quantizer_version: str
    warnings: tuple[str, ...] = ()
    """What no report of errors shows: which weights an engine cannot serve."""
    totals: Totals
    tensors: tuple[TensorReport, ...]
    """In name order."""
    untrained_layers: tuple[int, ...] = ()
    """Layers of a training checkpoint that are its source's (multi-token prediction)."""


def make_report(
    content_key: str,
    fingerprint: str,
    fmt: WeightFormat,
    quantizer_version: str,
    shards: Sequence[ShardReport],
    untrained_layers: tuple[int, ...] = (),
    warnings: tuple[str, ...] = (),
) -> ConversionReport:
    """Merge the reports of all shards."""
    tensors = tuple(sorted((t for shard in shards for t in shard.tensors), key=lambda t: t.name))
    return ConversionReport(
        content_key=content_key,
        fingerprint=fingerprint,
        format=fmt,
        quantizer_version=quantizer_version,
        warnings=warnings,
        totals=_totals(shards, tensors),
        tensors=tensors,
        untrained_layers=untrained_layers,
    )


def _totals(shards: Sequence[ShardReport], tensors: Sequence[TensorReport]) -> Totals:
    quantized = [t for t in tensors if t.relative_rms_error is not None]
    packed = [t for t in quantized if t.exact_groups is not None]
    worst = worst_tensor(tensors)
    squared_weight = math.fsum(t.squared_weight for t in quantized)
    squared_error = math.fsum(t.squared_error for t in quantized)
    return Totals(
        shards=len(shards),
        tensors=len(tensors),
        quantized=len(quantized),
        dequantized=sum(t.format == "dequantized" for t in tensors),
        copied=sum(t.format == "copied" for t in tensors),
        source_bytes=sum(shard.source_bytes for shard in shards),
        output_bytes=sum(shard.output_bytes for shard in shards),
        relative_rms_error=relative_rms(squared_error, squared_weight) if squared_weight else None,
        median_relative_rms_error=median(t.relative_rms_error or 0.0 for t in quantized) if quantized else None,
        exact_groups=sum(t.exact_groups or 0 for t in packed) if packed else None,
        mxfp4_groups=sum(t.groups for t in packed),
        worst_tensor=worst.name if worst else None,
        worst_relative_rms_error=worst.relative_rms_error if worst else None,
        max_abs_error=max((t.max_abs_error for t in quantized if t.max_abs_error is not None), default=None),
    )


def worst_tensor(tensors: Sequence[TensorReport]) -> TensorReport | None:
    """Return the quantised tensor with the largest relative RMS error (the first by name of equals)."""
    quantized = [t for t in tensors if t.relative_rms_error is not None]
    return min(quantized, key=lambda t: (-(t.relative_rms_error or 0.0), t.name), default=None)


def as_table(report: ConversionReport) -> str:
    """Return the report for people: the totals, then the worst tensors."""
    totals = report.totals
    lines = [
        f"format            {report.format.kind}, quantizer {report.quantizer_version}",
        f"content key       {report.content_key}",
        f"source            {human_bytes(totals.source_bytes)} in {totals.shards} shards",
        f"output            {human_bytes(totals.output_bytes)}",
        f"tensors           {totals.tensors}: {totals.quantized} quantised, {totals.dequantized} dequantised, {totals.copied} copied",
    ]
    if report.untrained_layers:
        layers = ", ".join(map(str, report.untrained_layers))
        lines.append(f"untrained         layers {layers}: multi-token prediction, the weights training started from")
    if totals.median_relative_rms_error is not None:
        said = f"median {totals.median_relative_rms_error:.6f}, worst {totals.worst_relative_rms_error or 0.0:.6f}"
        lines.append(f"relative RMS      {said} of {totals.quantized} quantised tensors")
    if totals.exact_groups is not None:
        lines.append(
            f"exact             {totals.exact_groups} of {totals.mxfp4_groups} scales of what was MXFP4: the same values, to the last bit"
        )
    rows = sorted((t for t in report.tensors if t.relative_rms_error is not None), key=lambda t: (-(t.relative_rms_error or 0.0), t.name))
    if rows:
        lines += ["", f"{'rel. RMS':>10}  {'max |error|':>11}  {'groups':>9}  {'zero':>6}  {'clipped':>7}  tensor"]
    for t in rows[:TABLE_ROWS]:
        head = f"{t.relative_rms_error:>10.6f}  {t.max_abs_error or 0.0:>11.3e}  {t.groups:>9}  {t.zero_groups:>6}  {t.clipped_groups:>7}"
        lines.append(f"{head}  {t.name} {list(t.shape)}")
    if len(rows) > TABLE_ROWS:
        lines.append(f"... and {len(rows) - TABLE_ROWS} more, all in conversion_report.json")
    if report.warnings:
        lines += ["", *(f"warning: {text}" for text in report.warnings)]
    return "\n".join(lines) + "\n"


def summary(table: str) -> str:
    """Return the head of a table: the totals and the worst tensors."""
    head, _, rest = table.rstrip().partition("\n\n")
    return "\n".join([head, *rest.partition("\n\n")[0].splitlines()[: SHOWN_ROWS + 1]])
