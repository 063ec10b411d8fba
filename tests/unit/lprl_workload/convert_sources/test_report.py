"""The conversion report tells of the tensors, not of the few that are large."""

import math

from lprl_api.model.formats import Int4Group
from lprl_workload.convert.report import as_table, make_report, summary
from lprl_workload.convert.run import ShardReport, TensorReport


def tensor(name: str, error: float, weight: float) -> TensorReport:
    return TensorReport(
        name=name,
        format="int4-group",
        shape=(8, 8),
        relative_rms_error=error,
        max_abs_error=error,
        squared_error=(error**2) * weight,
        squared_weight=weight,
    )


def shard(*tensors: TensorReport) -> ShardReport:
    return ShardReport(
        shard="a.safetensors", format=Int4Group(), quantizer_version="1", source_bytes=1, source_mtime_ns=1, source_xxh128="0" * 32,
        output="a.safetensors", output_bytes=1, output_blake3="0" * 64, weight_map=(), data_bytes=1, tensors=tensors,
    )  # fmt: skip


def test_one_huge_weight_does_not_hide_what_the_others_lost() -> None:
    huge = tensor("model.layers.0.mlp.down_proj.weight", 1e-7, 1e12)
    others = [tensor(f"model.layers.{n}.self_attn.q_proj.weight", 0.1 + n / 1000, 1.0) for n in range(1, 5)]
    copied = TensorReport(name="model.norm.weight", format="copied", shape=(8,))
    report = make_report("a" * 64, "b" * 64, Int4Group(), "1", [shard(huge, *others, copied)])
    assert report.totals.relative_rms_error is not None and report.totals.relative_rms_error < 1e-6
    assert math.isclose(report.totals.median_relative_rms_error or 0, 0.102)
    table = as_table(report)
    assert "relative RMS      median 0.102000, worst 0.104000 of 5 quantised tensors" in table
    assert "0.000000 over all" not in table
    shown = summary(table).splitlines()
    assert [line.split()[-3] for line in shown[-3:]] == [f"model.layers.{n}.self_attn.q_proj.weight" for n in (4, 3, 2)]


def test_a_conversion_that_quantises_nothing_shows_no_errors() -> None:
    copied = TensorReport(name="model.norm.weight", format="copied", shape=(8,))
    report = make_report("a" * 64, "b" * 64, Int4Group(), "1", [shard(copied)])
    assert report.totals.median_relative_rms_error is None
    assert "RMS" not in summary(as_table(report))
