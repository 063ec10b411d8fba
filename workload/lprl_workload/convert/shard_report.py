"""What became of a shard: the evidence that it needs no second conversion, read back by whoever publishes it (without torch)."""

from pathlib import Path

from pydantic import ValidationError

from lprl_api.base import Contract
from lprl_api.model.formats import WeightFormat

REPORTS = "reports"
"""Folder of the per-shard reports inside the unfinished target."""


class TensorReport(Contract):
    """One output weight (X.weight stands for its codes and scales)."""

    name: str
    format: str
    """Kind of WeightFormat it was quantised to, `dequantized`, or `copied`."""
    shape: tuple[int, ...]
    relative_rms_error: float | None = None
    """Against the BF16 weight; None for what was not quantised."""
    max_abs_error: float | None = None
    groups: int = 0
    """Blocks, channels or groups that share a scale."""
    zero_groups: int = 0
    clipped_groups: int = 0
    """Groups whose largest weight lies beyond the largest code (the scale was rounded down)."""
    exact_groups: int | None = None
    """Groups that hold an MXFP4 source to the last bit; None for other sources."""
    squared_error: float = 0.0
    """Sum over the weight; sums of tensors add up to a model's relative RMS error."""
    squared_weight: float = 0.0


class ShardReport(Contract):
    """What became of one source shard: evidence for skipping it, and its part of the conversion report."""

    shard: str
    format: WeightFormat
    quantizer_version: str
    source_bytes: int
    source_mtime_ns: int
    source_xxh128: str
    """XXH3 digest of the source shard's bytes (convert/digest.py)."""
    output: str
    output_bytes: int
    output_blake3: str
    weight_map: tuple[str, ...]
    """Names of the tensors in the output file, sorted."""
    data_bytes: int
    """Bytes of the tensors, without the header."""
    tensors: tuple[TensorReport, ...]


def report_path(target_partial: Path, shard: str) -> Path:
    """Return where the report of `shard` is."""
    return target_partial / REPORTS / f"{shard}.json"


def read_report(target_partial: Path, shard: str) -> ShardReport | None:
    """Return the report of a finished shard, None when there is none that can be read."""
    try:
        return ShardReport.model_validate_json(report_path(target_partial, shard).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
