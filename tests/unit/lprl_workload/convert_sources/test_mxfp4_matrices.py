"""MXFP4 a matrix at a time, as compressed-tensors stores Kimi-K3's experts: to BF16, and to FP8 where a block can, to the last bit.

What bytes stand for is computed here in exact fractions of two, by the definitions of E2M1, E8M0 and E4M3 alone.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from compressed_tensors.compressors.mxfp4.base import MXFP4PackedCompressor
from compressed_tensors.quantization import QuantizationScheme
from compressed_tensors.quantization.quant_scheme import MXFP4A16
from safetensors.torch import load_file, save_file
from tests.zoo.decode import e4m3
from torch import Tensor

from lprl_api.errors import UserError
from lprl_api.model.formats import Bf16, Fp8Block, Fp8Channel, Fp8Tensor, WeightFormat
from lprl_api.model.look import Look
from lprl_operator.resources.conversions import served_as_is
from lprl_workload.convert.export import convert_folder
from lprl_workload.convert.inspect import inspect_folder, look_at
from lprl_workload.convert.report import ConversionReport
from lprl_workload.convert.verify import verify_folder
from lprl_workload.convert.weights import ModelFolder

EXPERT = "language_model.model.layers.{}.block_sparse_moe.experts.{}.w{}"
LAYERS, EXPERTS, HIDDEN, FFN = 2, 2, 256, 160
IGNORE = [r"re:.*self_attn.*", r"re:.*shared_experts.*", r"re:.*mlp\.(gate|up|gate_up|down)_proj.*", "re:.*lm_head.*"]


def value(code: int, scale: int) -> float:
    """Return what an E2M1 code under an E8M0 scale stands for: sign, 2 bits of exponent with bias 1, 1 of fraction."""
    exponent, fraction = code >> 1 & 3, code & 1
    magnitude = fraction / 2 if exponent == 0 else (1 + fraction / 2) * 2.0 ** (exponent - 1)
    return (-magnitude if code & 8 else magnitude) * 2.0 ** (scale - 127)


def mxfp4(packed: Tensor, scale: Tensor) -> np.ndarray:
    """Return float64 [N, K] of compressed-tensors' bytes: two codes to a byte, the first in the low bits."""
    table = np.array([[value(code, e) for e in range(255)] for code in range(16)])
    codes = np.stack([packed.numpy() & 15, packed.numpy() >> 4], axis=-1).reshape(packed.shape[0], -1)
    return table[codes, np.repeat(scale.numpy(), 32, axis=1)]


E4M3 = np.array([e4m3(byte) for byte in range(256)])


def fp8(codes: Tensor, scale: Tensor) -> np.ndarray:
    wide = np.kron(scale.double().numpy(), np.ones((128, 128)))
    return E4M3[codes.view(torch.uint8).numpy()] * wide[: codes.shape[0], : codes.shape[1]]


def packed(name: str, rows: int, cols: int, low: int, high: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Return a matrix of random codes, and exponents from `low` to `high`."""
    return {
        f"{name}.weight_packed": torch.randint(0, 256, (rows, cols // 2), generator=generator, dtype=torch.uint8),
        f"{name}.weight_scale": torch.randint(low, high + 1, (rows, cols // 32), generator=generator, dtype=torch.uint8),
    }


def kimi_k3(folder: Path, low: int = 110, high: int = 124, **changes: Tensor | None) -> Path:
    """Write a folder of Kimi-K3's kind: no class of transformers, experts in MXFP4, a tower beside."""
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(0)
    tensors = {
        f"language_model.{name}.weight": torch.randn(160, HIDDEN, generator=generator).bfloat16()
        for name in ("model.embed_tokens", "lm_head")
    }
    for layer in range(LAYERS):
        at = f"language_model.model.layers.{layer}"
        tensors[f"{at}.self_attn.q_proj.weight"] = torch.randn(HIDDEN, HIDDEN, generator=generator).bfloat16()
        tensors[f"{at}.block_sparse_moe.gate.weight"] = torch.randn(EXPERTS, HIDDEN, generator=generator).bfloat16()
        tensors[f"{at}.input_layernorm.weight"] = torch.ones(HIDDEN, dtype=torch.bfloat16)
        for expert in range(EXPERTS):
            for w, (rows, cols) in {1: (FFN, HIDDEN), 2: (HIDDEN, FFN), 3: (FFN, HIDDEN)}.items():
                tensors |= packed(EXPERT.format(layer, expert, w), rows, cols, low, high, generator)
    tensors["vision_tower.blocks.0.qkv.weight"] = torch.randn(192, 64, generator=generator).bfloat16()
    kept = {name: tensor for name, tensor in (tensors | changes).items() if tensor is not None}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    text = {"model_type": "kimi_k3_text", "num_hidden_layers": LAYERS, "hidden_size": HIDDEN, "quantization_config": section()}
    config = {"model_type": "kimi_k3", "architectures": ["KimiK3ForConditionalGeneration"], "text_config": text}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def section() -> dict[str, Any]:
    """Return the quantization_config Kimi-K3 was published with."""
    weights = {
        "num_bits": 4, "type": "float", "strategy": "group", "group_size": 32, "symmetric": True, "dynamic": False,
        "scale_dtype": "torch.uint8", "zp_dtype": "torch.uint8", "actorder": None, "block_structure": None, "observer": "minmax",
    }  # fmt: skip
    group = {"targets": ["Linear"], "weights": weights, "input_activations": None, "format": "mxfp4-pack-quantized"}
    return {
        "quant_method": "compressed-tensors", "format": "mxfp4-pack-quantized", "quantization_status": "compressed",
        "config_groups": {"group_0": group}, "ignore": IGNORE, "kv_cache_scheme": None,
    }  # fmt: skip


def experts(folder: Path) -> dict[str, np.ndarray]:
    """Return the MXFP4 weights of a folder, decoded here."""
    stored = load_file(folder / "model.safetensors")
    names = [name.removesuffix("_packed") for name in stored if name.endswith(".weight_packed")]
    return {name: mxfp4(stored[f"{name}_packed"], stored[f"{name}_scale"]) for name in names}


def report(folder: Path) -> ConversionReport:
    return ConversionReport.model_validate_json((folder / "conversion_report.json").read_text())


@pytest.mark.parametrize("span", [0, 7, 14])
def test_groups_up_to_14_exponents_apart_go_into_blocks_to_the_last_bit(span: int, tmp_path: Path) -> None:
    source = kimi_k3(tmp_path / "mxfp4", 124 - span, 124)
    convert_folder(source, tmp_path / "fp8", Fp8Block(), 1)
    stored, wanted = load_file(tmp_path / "fp8" / "model.safetensors"), experts(source)
    assert len(wanted) == LAYERS * EXPERTS * 3
    for name, values in wanted.items():
        assert np.array_equal(fp8(stored[name], stored[f"{name}_scale_inv"]), values), name
        assert np.frexp(stored[f"{name}_scale_inv"].numpy())[0].max() == 0.5, "a power of two"
    totals = report(tmp_path / "fp8").totals
    assert totals.exact_groups == totals.mxfp4_groups == LAYERS * EXPERTS * (2 * 2 + 2 * 2 + 2 * 2)
    said = f"exact             {totals.exact_groups} of {totals.exact_groups} scales of what was MXFP4: the same values, to the last bit"
    assert said in (tmp_path / "fp8" / "conversion_report.txt").read_text()
    assert verify_folder(tmp_path / "fp8", source, None).problems == ()
    # What was BF16 is quantised as ever, and the tower is copied.
    q = "language_model.model.layers.0.self_attn.q_proj.weight"
    convert_folder(source, tmp_path / "bf16", Bf16(), 1)
    convert_folder(tmp_path / "bf16", tmp_path / "again", Fp8Block(), 1)
    again = load_file(tmp_path / "again" / "model.safetensors")
    assert torch.equal(again[q].view(torch.uint8), stored[q].view(torch.uint8)) and again.keys() == stored.keys()
    assert stored["vision_tower.blocks.0.qkv.weight"].dtype == torch.bfloat16


def test_blocks_that_span_more_are_quantised_as_their_bf16_values_are_and_counted(tmp_path: Path) -> None:
    name = f"{EXPERT.format(0, 0, 1)}.weight"
    plain = load_file(kimi_k3(tmp_path / "even") / "model.safetensors")
    codes, scale = plain[f"{name}_packed"].clone(), plain[f"{name}_scale"].clone()
    codes[3, 0], scale[3, 0] = 0x21, 108  # 0.5 of an exponent 16 below the largest of its block
    codes[0, 0], scale[0, 0] = 0x77, 124  # 6 of the largest
    source = kimi_k3(tmp_path / "mxfp4", **{f"{name}_packed": codes, f"{name}_scale": scale})
    for fmt in (Bf16(), Fp8Block()):
        convert_folder(source, tmp_path / fmt.kind, fmt, 1)
    convert_folder(tmp_path / "bf16", tmp_path / "through", Fp8Block(), 1)
    stored, through = (load_file(tmp_path / path / "model.safetensors") for path in ("fp8-block", "through"))
    wanted, found = experts(source)[name], fp8(stored[name], stored[f"{name}_scale_inv"])
    assert not np.array_equal(found[:128, :128], wanted[:128, :128])
    assert torch.equal(stored[name].view(torch.uint8)[:128, :128], through[name].view(torch.uint8)[:128, :128])
    assert stored[f"{name}_scale_inv"][0, 0] == through[f"{name}_scale_inv"][0, 0]
    found[:128, :128] = wanted[:128, :128]
    assert np.array_equal(found, wanted), "every other block is exact"
    totals = report(tmp_path / "fp8-block").totals
    assert totals.exact_groups == totals.mxfp4_groups - 1
    assert verify_folder(tmp_path / "fp8-block", source, None).problems == ()


def test_bf16_holds_every_value_and_so_does_compressed_tensors_own_reader(tmp_path: Path) -> None:
    source = kimi_k3(tmp_path / "mxfp4", 1, 251)
    convert_folder(source, tmp_path / "bf16", Bf16(), 1)
    stored, codes = load_file(tmp_path / "bf16" / "model.safetensors"), load_file(source / "model.safetensors")
    for name, values in experts(source).items():
        assert np.array_equal(stored[name].double().numpy(), values), name
    name = f"{EXPERT.format(0, 0, 1)}.weight"
    parts = {leaf: codes[f"{name.removesuffix('.weight')}.{leaf}"] for leaf in ("weight_packed", "weight_scale")}
    theirs = MXFP4PackedCompressor.decompress(parts, QuantizationScheme(targets=["Linear"], **MXFP4A16))["weight"]
    close = parts["weight_scale"].repeat_interleave(32, dim=1) < 240  # theirs overflow a little earlier
    assert torch.equal(theirs[close].bfloat16(), stored[name][close])
    assert "quantization_config" not in json.loads((tmp_path / "bf16" / "config.json").read_text())["text_config"]
    assert verify_folder(tmp_path / "bf16", source, None).problems == ()


@pytest.mark.parametrize("fmt", [Fp8Channel(), Fp8Tensor(), Fp8Block(scale_format="ue8m0")], ids=["channel", "tensor", "ue8m0"])
def test_other_fp8_formats_take_it_too(fmt: WeightFormat, tmp_path: Path) -> None:
    source = kimi_k3(tmp_path / "mxfp4")
    convert_folder(source, tmp_path / "fp8", fmt, 1)
    made = ModelFolder(tmp_path / "fp8")
    exact = [torch.equal(made.weight(name).values().double(), torch.from_numpy(values)) for name, values in experts(source).items()]
    assert all(exact) == (not isinstance(fmt, Fp8Tensor)), "one scale for the whole is an ordinary one"
    assert verify_folder(tmp_path / "fp8", source, None).problems == ()


def test_inspect_names_the_format_and_a_job_is_told_that_the_family_is_not_trained(tmp_path: Path) -> None:
    source = kimi_k3(tmp_path / "mxfp4")
    looked = look_at(source)
    assert isinstance(looked, Look) and looked.quantization.format == "mxfp4" and looked.routed == LAYERS * EXPERTS * 3
    with pytest.raises(UserError, match="model_type kimi_k3_text cannot be trained here"):
        inspect_folder(source, "")


def test_a_family_with_a_table_is_read_from_it_and_its_jobs_dequantise_it(make_model: Any, tmp_path: Path) -> None:
    folder = make_model("mxfp4", architecture="qwen3-moe", shards=1)
    file = next(folder.glob("*.safetensors"))
    stored, generator = load_file(file), torch.Generator().manual_seed(0)
    for name, tensor in list(stored.items()):
        if ".experts." in name:
            stored |= packed(name.removesuffix(".weight"), *tensor.shape, 110, 120, generator)
            del stored[name]
    save_file(stored, file, metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": section()}))
    found = inspect_folder(folder, "")
    assert found.quantization.format == "mxfp4" and not served_as_is(found.quantization, Fp8Block())
    convert_folder(folder, tmp_path / "fp8", Fp8Block(), 1)
    totals = report(tmp_path / "fp8").totals
    assert totals.exact_groups == totals.mxfp4_groups > 0
    assert verify_folder(tmp_path / "fp8", folder, None).problems == ()


W1 = EXPERT.format(0, 0, 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({f"{W1}.weight_scale": None}, rf"tensor {W1}\.weight_packed: its scale {W1}\.weight_scale is missing"),
        ({f"{W1}.weight_scale": torch.full((FFN, 4), 120, dtype=torch.uint8)}, r"does not fit mxfp4 codes \[160, 128\]; needs \[160, 8\]"),
        ({f"{W1}.weight_scale": torch.full((FFN, 8), 255, dtype=torch.uint8)}, "NaN or infinite"),
        ({f"{W1}.weight_packed": torch.zeros(FFN, 120, dtype=torch.uint8)}, r"does not fit mxfp4 codes"),
        ({f"{W1}.weight_zero_point": torch.zeros(FFN, 8, dtype=torch.uint8)}, "asymmetric weights"),
    ],
    ids=["no-scales", "too-few-scales", "nan", "short-group", "zero-points"],
)
def test_what_does_not_fit_together_is_named(changes: dict[str, Tensor | None], message: str, tmp_path: Path) -> None:
    source = kimi_k3(tmp_path / "mxfp4", **changes)
    for fmt in (Bf16(), Fp8Block()):
        with pytest.raises(UserError, match=message):
            convert_folder(source, tmp_path / fmt.kind, fmt, 1)
