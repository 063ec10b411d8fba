"""Converted files against the quantizer, reverse conversions, resume, and what is refused."""

import json
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from lprl_api.model.formats import Bf16, Fp8Block, Fp8Channel, Fp8Tensor, Int4Group, WeightFormat
from lprl_api.spec.precision import Scope
from lprl_workload.convert.digest import digest_file, source_digest
from lprl_workload.convert.run import convert_shards
from lprl_workload.folder.contents import stored_tensors
from lprl_workload.quant.scheme import fake_quantize, quantize
from lprl_workload.quant.select import Selection

sys.path.insert(0, str(Path(__file__).parent))
from models import SHAPES, checkpoint_tensors, convert, load, save

ALL = Scope.ALL_LINEAR
FORMATS = [
    Fp8Block(),
    Fp8Block(scale_format="ue8m0"),
    Fp8Channel(),
    Fp8Tensor(),
    Int4Group(group_size=32, scope=ALL),
    Int4Group(group_size=128),
]
MOE = SHAPES["qwen3-moe"]


def ids(fmt: WeightFormat) -> str:
    return "-".join(str(v) for v in fmt.model_dump(mode="json", exclude={"exclude_modules", "block_size"}).values())


def same(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8))


def wanted(tensors: dict[str, Tensor], fmt: WeightFormat, model: str) -> dict[str, Tensor]:
    selection, out = Selection(fmt, SHAPES[model]), {}
    for name, weight in tensors.items():
        out |= quantize(name, weight, fmt) if selection.selects(name, tuple(weight.shape)) else {name: weight}
    return out


def assert_same(got: dict[str, Tensor], want: dict[str, Tensor]) -> None:
    assert sorted(got) == sorted(want)
    for name, tensor in want.items():
        assert same(got[name], tensor), name


@pytest.mark.parametrize("native", ["1", "0"], ids=["native", "torch"])
@pytest.mark.parametrize("fmt", FORMATS, ids=ids)
@pytest.mark.parametrize("model", ["qwen3-moe", "deepseek-v3"])
def test_file_bytes_are_those_of_quantize(model: str, fmt: WeightFormat, native: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("LPRL_NATIVE", native)
    source = save(model, tmp_path / "source", shard_size="200KB")
    reports = convert(tmp_path / "source", tmp_path / "out", fmt, SHAPES[model], threads=2)
    assert len(reports) > 1
    tensors = {name: tensor for name, tensor in load(tmp_path / "source").items()}
    assert sorted(tensors) == sorted(checkpoint_tensors(source))
    assert_same(load(tmp_path / "out"), wanted(tensors, fmt, model))
    for report in reports:
        path = tmp_path / "out" / report.output
        assert (report.output_blake3, report.output_bytes) == (digest_file(path), path.stat().st_size)
        assert report.source_xxh128 == source_digest(tmp_path / "source" / report.shard)
        assert report.weight_map == tuple(sorted(load_file(path)))
        assert report.data_bytes == sum(t.nbytes for t in load_file(path).values())


@pytest.mark.parametrize("fmt", [*FORMATS, Bf16()], ids=ids)
def test_fused_experts_become_the_per_expert_files(fmt: WeightFormat, tmp_path: Path) -> None:
    """The same model with experts stored as 3-D tensors, as transformers 5 keeps them, gives the same weights."""
    model = save("qwen3-moe", tmp_path / "split")
    fused = tmp_path / "fused"
    fused.mkdir()
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, fused / "model.safetensors")
    (fused / "config.json").write_text((tmp_path / "split" / "config.json").read_text())
    assert any("experts.gate_up_proj" in name for name in load(fused))
    for source in ("split", "fused"):
        convert(tmp_path / source, tmp_path / f"{source}-out", fmt, MOE)
    assert_same(load(tmp_path / "fused-out"), load(tmp_path / "split-out"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("fmt", FORMATS, ids=ids)
def test_other_dtypes_are_rounded_to_bf16_first(fmt: WeightFormat, dtype: torch.dtype, tmp_path: Path) -> None:
    save("qwen3-moe", tmp_path / "source", dtype)
    convert(tmp_path / "source", tmp_path / "out", fmt, MOE)
    assert_same(load(tmp_path / "out"), wanted(load(tmp_path / "source"), fmt, "qwen3-moe"))


@pytest.mark.parametrize("fmt", FORMATS, ids=ids)
@pytest.mark.parametrize("model", ["qwen3-moe", "deepseek-v3"])
def test_dequantising_gives_bf16_of_the_served_value(model: str, fmt: WeightFormat, tmp_path: Path) -> None:
    save(model, tmp_path / "source")
    convert(tmp_path / "source", tmp_path / "low", fmt, SHAPES[model])
    convert(tmp_path / "low", tmp_path / "back", Bf16(), SHAPES[model])
    selection, source = Selection(fmt, SHAPES[model]), load(tmp_path / "source")
    want = {n: fake_quantize(t, fmt).to(torch.bfloat16) if selection.selects(n, tuple(t.shape)) else t for n, t in source.items()}
    assert_same(load(tmp_path / "back"), want)
    assert "quantization_config" not in json.loads((tmp_path / "back" / "config.json").read_text())


def test_low_precision_to_another_goes_through_bf16(tmp_path: Path) -> None:
    save("qwen3-moe", tmp_path / "source")
    convert(tmp_path / "source", tmp_path / "fp8", Fp8Block(), MOE)
    convert(tmp_path / "fp8", tmp_path / "bf16", Bf16(), MOE)
    target = Int4Group(group_size=32, scope=ALL)
    convert(tmp_path / "fp8", tmp_path / "direct", target, MOE)
    convert(tmp_path / "bf16", tmp_path / "indirect", target, MOE)
    assert_same(load(tmp_path / "direct"), load(tmp_path / "indirect"))


def test_scales_in_another_shard_are_found(tmp_path: Path) -> None:
    save("qwen3-moe", tmp_path / "source")
    convert(tmp_path / "source", tmp_path / "fp8", Fp8Block(), MOE)
    tensors = load(tmp_path / "fp8")
    apart = tmp_path / "apart"
    apart.mkdir()
    scales = {name: tensor for name, tensor in tensors.items() if name.endswith("scale_inv")}
    save_file({n: t for n, t in tensors.items() if n not in scales}, apart / "a.safetensors")
    save_file(scales, apart / "b.safetensors")
    (apart / "config.json").write_text((tmp_path / "fp8" / "config.json").read_text())
    convert(tmp_path / "fp8", tmp_path / "want", Bf16(), MOE)
    convert(apart, tmp_path / "got", Bf16(), MOE)
    assert_same(load(tmp_path / "got"), load(tmp_path / "want"))


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.parametrize("fmt", FORMATS, ids=ids)
def test_any_shape_any_values(fmt: WeightFormat, data: st.DataObject, tmp_path_factory) -> None:
    """Bar 3: bytes in the file == quantize(), over ragged shapes, zeros, denormals and extremes, in one file with odd sizes."""
    columns = fmt.group_size if isinstance(fmt, Int4Group) else 1
    folder = tmp_path_factory.mktemp("any")
    tensors = {"odd": torch.zeros(data.draw(st.integers(1, 7)), dtype=torch.uint8)}
    for layer in range(data.draw(st.integers(1, 3))):
        rows, cols = data.draw(st.integers(1, 300)), data.draw(st.integers(1, 300 // columns)) * columns
        scale = data.draw(st.sampled_from([0.0, 1e-40, 1e-37, 1e-9, 0.02, 1.0, 1e30, 5e37]))
        generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
        weight = (torch.randn(rows, cols, generator=generator) * scale).clamp(-3e38, 3e38)
        tensors[f"model.layers.{layer}.mlp.experts.0.down_proj.weight"] = weight.to(torch.bfloat16)
    source, target = folder / "source", folder / "out"
    source.mkdir()
    save_file(tensors, source / "model.safetensors")
    (source / "config.json").write_text("{}")
    convert_shards(source, target, fmt, MOE, ["model.safetensors"], 1, lambda _: None, stored_tensors(source))
    assert_same(load(target), wanted(tensors, fmt, "qwen3-moe"))
