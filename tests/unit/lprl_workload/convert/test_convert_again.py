"""Shards that are there already, damaged or refused: what is redone, what is reported, what is never begun."""

import json
import os
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from lprl_api.errors import UserError
from lprl_api.model.formats import Bf16, Fp8Block, Fp8Tensor, Int4Group
from lprl_api.spec.precision import Scope
from lprl_workload.convert import run as run_module
from lprl_workload.convert.digest import digest_file
from lprl_workload.convert.progress import ShardProgress
from lprl_workload.convert.run import convert_shards, report_path
from lprl_workload.convert.stream import check_finite
from lprl_workload.folder.contents import stored_tensors
from lprl_workload.quant.scheme import fake_quantize

sys.path.insert(0, str(Path(__file__).parent))
from models import SHAPES, convert, save

sys.path.insert(0, str(Path(__file__).parent))
from models import load

ALL = Scope.ALL_LINEAR
MOE = SHAPES["qwen3-moe"]


def snapshot(folder: Path) -> dict[str, tuple[int, str]]:
    return {path.name: (path.stat().st_mtime_ns, digest_file(path)) for path in folder.glob("*.safetensors")}


def test_bytes_are_deterministic_and_finished_shards_are_not_redone(tmp_path: Path) -> None:
    save("qwen3-moe", tmp_path / "source", shard_size="200KB")
    first = convert(tmp_path / "source", tmp_path / "out", Fp8Block(), MOE)
    before = snapshot(tmp_path / "out")
    seen: list[ShardProgress] = []
    shards = [report.shard for report in first]
    again = convert_shards(tmp_path / "source", tmp_path / "out", Fp8Block(), MOE, shards, 2, seen.append)
    assert again == first
    assert snapshot(tmp_path / "out") == before
    assert seen[-1].bytes_done == seen[-1].bytes_total == seen[-1].bytes_skipped
    assert seen[-1].shards_done == len(shards)
    convert(tmp_path / "source", tmp_path / "other", Fp8Block(), MOE, threads=3)
    assert {n: d for n, (_, d) in snapshot(tmp_path / "other").items()} == {n: d for n, (_, d) in before.items()}


def _corrupt(target: Path, source: Path, shard: str) -> None:
    path = target / shard
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def _touch(target: Path, source: Path, shard: str) -> None:
    os.utime(source / shard, ns=(1, 1))


def _drop_output(target: Path, source: Path, shard: str) -> None:
    (target / shard).unlink()


def _drop_report(target: Path, source: Path, shard: str) -> None:
    report_path(target, shard).unlink()


def _garble_report(target: Path, source: Path, shard: str) -> None:
    report_path(target, shard).write_text("{")


@pytest.mark.parametrize("damage", [_corrupt, _touch, _drop_output, _drop_report, _garble_report])
def test_one_damaged_shard_is_redone_alone(damage, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "out"
    save("qwen3-moe", source, shard_size="200KB")
    reports = convert(source, target, Fp8Block(), MOE)
    before = snapshot(target)
    shard = reports[1].shard
    damage(target, source, shard)
    assert [r.output_blake3 for r in convert(source, target, Fp8Block(), MOE)] == [r.output_blake3 for r in reports]
    after = snapshot(target)
    assert {name for name in after if after[name] != before[name]} == {shard}


def test_another_format_or_quantizer_redoes_everything(tmp_path: Path, monkeypatch) -> None:
    source, target = tmp_path / "source", tmp_path / "out"
    save("qwen3-moe", source)
    convert(source, target, Fp8Block(), MOE)
    one = snapshot(target)
    convert(source, target, Fp8Block(scale_format="ue8m0"), MOE)
    two = snapshot(target)
    assert one != two
    monkeypatch.setattr(run_module, "QUANTIZER_VERSION", "next")
    convert(source, target, Fp8Block(scale_format="ue8m0"), MOE)
    three = snapshot(target)
    assert three != two
    assert [d for _, d in three.values()] == [d for _, d in two.values()]


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("module", ["self_attn.q_proj", "input_layernorm"], ids=["quantised", "copied"])
def test_nothing_is_left_of_a_shard_that_fails(module: str, dtype: torch.dtype, value: float, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "out"
    save("qwen3-moe", source, dtype)
    tensors = load(source)
    tensors[f"model.layers.1.{module}.weight"].view(-1)[5] = value
    save_file(tensors, source / "model.safetensors")
    with pytest.raises(UserError, match=rf"source/model\.safetensors: tensor model\.layers\.1\.{module}\.weight: NaN or inf") as refused:
        convert(source, target, Fp8Block(), MOE)
    assert "damaged" in refused.value.remedy
    assert [path.name for path in target.rglob("*") if path.is_file()] == []


def test_large_values_are_finite() -> None:
    """The quick check is a sum, which overflows where no value does."""
    for dtype in (torch.bfloat16, torch.float16, torch.float32, torch.float64):
        check_finite(torch.full((64,), torch.finfo(dtype).max, dtype=dtype))
    check_finite(torch.zeros(0))
    check_finite(torch.zeros(4, dtype=torch.int64))


def test_a_source_scale_that_is_no_number_is_refused(tmp_path: Path) -> None:
    scale = torch.tensor([[1.0], [float("nan")]])
    source = _write(tmp_path / "source", {X: CODES, f"{X}_scale_inv": scale}, FP8)
    with pytest.raises(UserError, match=r"q_proj\.weight: NaN or infinite values"):
        convert_shards(source, tmp_path / "out", Bf16(), MOE, ["model.safetensors"], 1, lambda _: None, stored_tensors(source))


def test_progress_counts_every_byte(tmp_path: Path) -> None:
    source = tmp_path / "source"
    save("qwen3-moe", source, shard_size="200KB")
    shards = sorted(path.name for path in source.glob("*.safetensors"))
    seen: list[ShardProgress] = []
    convert_shards(source, tmp_path / "out", Fp8Tensor(), MOE, shards, 1, seen.append)
    total = sum((source / shard).stat().st_size for shard in shards)
    assert (seen[-1].bytes_done, seen[-1].bytes_total, seen[-1].shards_done) == (total, total, len(shards))
    assert [p.bytes_done for p in seen] == sorted(p.bytes_done for p in seen)
    assert seen[-1].bytes_per_second > 0
    assert seen[-1].seconds_left == 0


def test_error_report(tmp_path: Path) -> None:
    source = tmp_path / "source"
    save("deepseek-v3", source)
    tensors = load(source)
    name = "model.layers.0.mlp.gate_proj.weight"
    tensors[name][:128, :128] = 0
    save_file(tensors, source / "model.safetensors")
    (report,) = convert(source, tmp_path / "out", Fp8Block(), SHAPES["deepseek-v3"])
    row = next(t for t in report.tensors if t.name == name)
    error = fake_quantize(tensors[name], Fp8Block()).double() - tensors[name].double()
    rms = (error.square().sum() / tensors[name].double().square().sum()).sqrt()
    assert row.relative_rms_error == pytest.approx(float(rms), rel=1e-5)
    assert row.max_abs_error == pytest.approx(float(error.abs().max()), rel=1e-5)
    assert (row.groups, row.zero_groups, row.clipped_groups) == (2, 1, 0)
    assert next(t for t in report.tensors if t.name == "lm_head.weight").format == "copied"


def _write(folder: Path, tensors: dict[str, Tensor], config: dict[str, object]) -> Path:
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


FP8 = {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}
CODES = torch.zeros(256, 128).to(torch.float8_e4m3fn)
X = "model.layers.0.self_attn.q_proj.weight"


@pytest.mark.parametrize(
    ("tensors", "config", "fmt", "match"),
    [
        pytest.param({X: CODES}, {}, Bf16(), "describes no such quantisation", id="codes-without-config"),
        pytest.param({X: CODES}, FP8, Bf16(), "partner .*weight_scale_inv is in no shard", id="scale-missing"),
        pytest.param(
            {X: CODES, f"{X}_scale_inv": torch.ones(1, 1)}, FP8, Bf16(), r"scale_inv: F32 \[1, 1\] does not fit", id="scale-shape"
        ),
        pytest.param({X: CODES, f"{X}_scale_inv": torch.ones(2, 1)}, FP8, Fp8Block(), "is fp8-block already", id="same-format"),
        pytest.param({X: torch.zeros(2, 40, dtype=torch.int32)}, {}, Fp8Block(), "dtype I32 cannot be quantised", id="integers"),
        pytest.param({X: torch.zeros(2, 40)}, {}, Int4Group(scope=ALL), "no multiple of INT4 group size", id="ragged-group"),
        pytest.param(
            {"model.layers.0.mlp.experts.gate_up_proj": torch.zeros(4, 128, 256)},
            {},
            Fp8Block(),
            r"needs \[experts, out, in\]",
            id="transposed",
        ),
    ],
)
def test_refused_before_anything_is_written(tensors, config, fmt, match: str, tmp_path: Path) -> None:
    source = _write(tmp_path / "source", tensors, config)
    with pytest.raises(UserError, match=match) as refused:
        convert_shards(source, tmp_path / "out", fmt, MOE, ["model.safetensors"], 1, lambda _: None, stored_tensors(source))
    assert refused.value.remedy and not (tmp_path / "out").exists()
