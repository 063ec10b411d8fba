"""What we write loads with transformers' and compressed-tensors' own code, and their dequantised values equal ours bit for bit."""

import sys
from pathlib import Path

import pytest
import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32, unpack_from_int32
from compressed_tensors.quantization import QuantizationConfig
from transformers import AutoModelForCausalLM, CompressedTensorsConfig
from transformers.integrations.finegrained_fp8 import Fp8Dequantize

from lprl_api.model.formats import Fp8Block, Fp8Channel, Fp8Tensor, Int4Group, WeightFormat
from lprl_api.spec.precision import Scope
from lprl_workload.quant.config_json import quantization_config
from lprl_workload.quant.int4_group import pack, quantize_int4
from lprl_workload.quant.scheme import dequantize, quantize
from lprl_workload.quant.select import Selection

sys.path.insert(0, str(Path(__file__).parent))
from models import SHAPES, convert, expected, save

COMPRESSED = [
    Fp8Channel(),
    Fp8Tensor(),
    Int4Group(group_size=32, scope=Scope.ALL_LINEAR),
    Int4Group(group_size=128, scope=Scope.ROUTED_EXPERTS),
]


def cases() -> list[object]:
    pairs = [(m, f) for m in SHAPES for f in COMPRESSED if m != "qwen3-tied" or not isinstance(f, Int4Group) or f.scope is Scope.ALL_LINEAR]
    return [pytest.param(m, f, id=f"{m}-{f.kind}{getattr(f, 'group_size', '')}") for m, f in pairs]


@pytest.mark.parametrize(("model", "fmt"), cases())
def test_compressed_tensors_models(model: str, fmt: WeightFormat, tmp_path: Path) -> None:
    source = save(model, tmp_path / "source")
    convert(tmp_path / "source", tmp_path / "out", fmt, SHAPES[model])
    loaded = AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", dtype=torch.bfloat16, local_files_only=True, quantization_config=CompressedTensorsConfig(dequantize=True)
    )
    got = loaded.state_dict()
    for name, want in expected(source, fmt, SHAPES[model]).items():
        assert torch.equal(got[name], want), name


@pytest.mark.parametrize("fmt", [Fp8Block(), Fp8Block(scale_format="ue8m0")], ids=["float32", "ue8m0"])
@pytest.mark.parametrize("model", ["qwen3-tied", "qwen3-moe"])
def test_block_fp8_models(model: str, fmt: Fp8Block, tmp_path: Path) -> None:
    source = save(model, tmp_path / "source")
    convert(tmp_path / "source", tmp_path / "out", fmt, SHAPES[model])
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.bfloat16, local_files_only=True)
    got = loaded.state_dict()
    for name, want in expected(source, fmt, SHAPES[model]).items():
        assert torch.equal(got[name], want), name


@pytest.mark.parametrize("fmt", [Fp8Block(), Fp8Block(scale_format="ue8m0")], ids=["float32", "ue8m0"])
@pytest.mark.parametrize("shape", [(128, 256), (384, 128), (64, 128), (100, 77)])
def test_block_fp8_weight_through_the_dequantiser_of_transformers(fmt: Fp8Block, shape: tuple[int, int]) -> None:
    parts = quantize("x.weight", torch.randn(shape), fmt)
    inputs = {"weight": parts["x.weight"], "weight_scale_inv": parts["x.weight_scale_inv"]}
    theirs = Fp8Dequantize(None).convert(inputs)["weight"]
    assert torch.equal(theirs, dequantize(parts, "x", fmt))


@pytest.mark.parametrize(("shape", "rows"), [((192, 128), 96), ((128, 192), None), ((160, 256), 80)])
def test_ragged_blocks_that_transformers_misreads_are_right_in_the_file(shape: tuple[int, int], rows: int | None) -> None:
    """transformers 5.23 divides a weight evenly by its scales: rows 192 with two scales are read as 96 + 96, not as 128 + 64.

    Here: the part it reads right is equal, the rest is off, and off exactly as that division explains. docs/converting.md says so.
    """
    parts = quantize("x.weight", torch.randn(shape), Fp8Block())
    theirs = Fp8Dequantize(None).convert({"weight": parts["x.weight"], "weight_scale_inv": parts["x.weight_scale_inv"]})["weight"]
    ours, codes, scale = dequantize(parts, "x", Fp8Block()), parts["x.weight"].float(), parts["x.weight_scale_inv"]
    by_hand = torch.stack([codes[i, j] * scale[i // 128, j // 128] for i in range(shape[0]) for j in range(shape[1])]).view(shape)
    assert torch.equal(ours, by_hand)
    evenly = scale.repeat_interleave(rows or shape[0], 0).repeat_interleave(shape[1] // scale.shape[1], 1)
    assert torch.equal(theirs, codes * evenly)
    assert not torch.equal(theirs, ours)
    assert torch.equal(theirs[: rows or shape[0], : shape[1] if rows else 96], ours[: rows or shape[0], : shape[1] if rows else 96])


def test_transformers_refuses_scales_that_do_not_divide_the_rows() -> None:
    parts = quantize("x.weight", torch.randn(576, 128), Fp8Block())
    with pytest.raises(ValueError, match="not divisible by scale grid"):
        Fp8Dequantize(None).convert({"weight": parts["x.weight"], "weight_scale_inv": parts["x.weight_scale_inv"]})


@pytest.mark.parametrize("fmt", COMPRESSED, ids=lambda f: f"{f.kind}{getattr(f, 'group_size', '')}")
@pytest.mark.parametrize("rows", [1, 7, 130])
def test_weight_through_the_decompressor_of_compressed_tensors(fmt: WeightFormat, rows: int) -> None:
    section = quantization_config(fmt, Selection(fmt, SHAPES["qwen3-moe"]), ["layers.0.mlp.experts.0.up_proj.weight"])
    config = QuantizationConfig.model_validate(section)
    scheme = config.config_groups["group_0"]
    parts = quantize("x.weight", torch.randn(rows, 256), fmt)
    state = {name.removeprefix("x."): tensor for name, tensor in parts.items()}
    compressor = BaseCompressor.get_value_from_registry(config.format)
    assert torch.equal(compressor.decompress(state, scheme)["weight"], dequantize(parts, "x", fmt))


def test_packing_equals_that_of_compressed_tensors() -> None:
    q, _ = quantize_int4(torch.randn(33, 256), 64)
    assert torch.equal(pack(q), pack_to_int32(q, 4))
    assert torch.equal(unpack_from_int32(pack(q), 4, torch.Size(q.shape)), q)
