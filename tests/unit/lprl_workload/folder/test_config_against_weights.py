"""config.json against the weights: a precision that no weight has, codes without scales, fused and mixed ones."""

import json
from collections.abc import Callable
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tests.unit.lprl_workload.folder.odd_folders import FORMATS, Tensors, set_config
from tests.unit.lprl_workload.folder.odd_folders_layers import fuse

from lprl_api.errors import UserError
from lprl_api.model.formats import Bf16
from lprl_workload.convert.export import convert_folder
from lprl_workload.convert.inspect import inspect_folder
from lprl_workload.convert.verify import verify_folder
from lprl_workload.convert.weights import ModelFolder
from lprl_workload.folder.config import read_shape
from lprl_workload.folder.model import read_contents
from lprl_workload.hf.served import ServedModel

FP8 = {"quant_method": "fp8", "weight_block_size": [128, 128]}
MOONSHOT = ["lm_head", "re:.*self_attn.*", "re:.*shared_experts.*", r"re:.*mlp\.(gate|up|gate_up|down)_proj.*"]
UP, SCALE = "model.layers.0.mlp.up_proj", "model.layers.0.mlp.up_proj.weight_scale_inv"
EXPERT = "model.layers.1.mlp.experts.2.up_proj"
Change = Callable[[Path], Any]


@pytest.fixture
def odd(quantised: Callable[[str, str], Path], tmp_path: Path) -> Callable[[str, str], Path]:
    return lambda architecture, fmt: Path(copytree(quantised(architecture, fmt), tmp_path / "odd"))


def edit(how: Callable[[Tensors], Tensors]) -> Change:
    def change(folder: Path) -> None:
        tensors = how(load_file(folder / "model.safetensors"))
        save_file({n: t.contiguous() for n, t in tensors.items()}, folder / "model.safetensors", metadata={"format": "pt"})

    return change


def without(*parts: str) -> Change:
    return edit(lambda tensors: {n: t for n, t in tensors.items() if not any(part in n for part in parts)})


def section(**changes: object) -> Change:
    def change(folder: Path) -> None:
        found = json.loads((folder / "config.json").read_text())["quantization_config"]
        set_config(folder, quantization_config=found | changes)

    return change


def no_section(folder: Path) -> None:
    set_config(folder, quantization_config=None)


def of_another(fmt: str) -> Change:
    """Give a folder the quantization_config of another format."""
    strategy = {"channel": "channel", "tensor": "tensor"}
    if fmt == "int4":
        scheme: dict[str, Any] = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32, "symmetric": True}
        found = {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {"g": {"weights": scheme}}}
    elif fmt == "fp8":
        return lambda folder: set_config(folder, quantization_config=FP8)
    else:
        scheme = {"num_bits": 8, "type": "float", "strategy": strategy[fmt], "symmetric": True}
        found = {"quant_method": "compressed-tensors", "format": "float-quantized", "config_groups": {"g": {"weights": scheme}}}
    return lambda folder: set_config(folder, quantization_config=found | {"ignore": ["lm_head"]})


def fused_as_transformers_saves_them(folder: Path) -> None:
    """What `save_pretrained(..., save_original_format=False)` of transformers 5.23 writes of an FP8 model."""
    tensors = load_file(folder / "model.safetensors")
    codes = {n: t for n, t in tensors.items() if not n.endswith("_scale_inv")}
    out = fuse({n: t.view(torch.uint8) if t.dtype == torch.float8_e4m3fn else t for n, t in codes.items()})
    out |= {n: t for n, t in tensors.items() if n.endswith("_scale_inv") and ".experts." not in n}
    for name in [n for n in out if n.endswith(("gate_up_proj", "down_proj"))]:
        out[f"{name}_scale_inv"] = torch.ones(4, 2 if "gate_up" in name else 1, 1)
    out = {n: t.view(torch.float8_e4m3fn) if t.dtype == torch.uint8 else t for n, t in out.items()}
    save_file(out, folder / "model.safetensors", metadata={"format": "pt"})


no_codes = edit(lambda tensors: {n: t for n, t in tensors.items() if n != f"{UP}.weight"})
cut_codes = edit(lambda tensors: tensors | {f"{UP}.weight": tensors[f"{UP}.weight"][:32]})


def packed_for_another_group(folder: Path) -> None:
    groups = json.loads((folder / "config.json").read_text())["quantization_config"]["config_groups"]
    for group in groups.values():
        group["weights"]["group_size"] = 64
    section(config_groups=groups)(folder)


REFUSED: list[tuple[str, str, str, Change, str, str]] = [
    ("bf16-said-fp8", "qwen3", "bf16", of_another("fp8"), r"says FP8 \(fp8-block\), no weight is FP8", "remove quantization_config"),
    ("bf16-said-channel", "llama", "bf16", of_another("channel"), r"says FP8 \(fp8-channel\), no weight is FP8", "remove quant"),
    ("bf16-said-int4", "qwen3-moe", "bf16", of_another("int4"), r"says INT4 .*, no weight is INT4", "remove quantization_config"),
    ("fp8-said-nothing", "qwen3", "fp8", no_section, r"no quantization_config, but tensor .* is F8_E4M3 \(14 such", "restore the quant"),
    ("int4-said-nothing", "qwen3", "int4", no_section, "no quantization_config, but tensor .*weight_packed is I32", "restore the quant"),
    ("fp8-said-int4", "qwen3", "fp8", of_another("int4"), "F8_E4M3; quantization_config says int4-group", "restore the quant"),
    ("int4-said-fp8", "qwen3", "int4", of_another("fp8"), "I32; quantization_config says fp8-block", "restore the quant"),
    ("block-said-channel", "qwen3", "fp8", of_another("channel"), r"scale_inv: F32 \[.*does not fit fp8-channel", "restore"),
    ("channel-said-block", "qwen3", "channel", of_another("fp8"), r"weight_scale_inv is missing \(.*weight_scale is there", "scales"),
    ("channel-said-tensor", "qwen3", "channel", of_another("tensor"), "does not fit fp8-tensor codes", "restore"),
    ("another-block-size", "qwen3", "fp8", section(weight_block_size=[32, 32]), "does not fit fp8-block codes", "restore"),
    ("another-group-size", "qwen3", "int4", packed_for_another_group, "does not fit int4-group codes", "restore"),
    ("scales-of-a-layer-missing", "qwen3", "fp8", without("layers.1.mlp.up_proj.weight_scale"), "its scale .* is missing", "complete"),
    ("scale-of-an-expert-missing", "qwen3-moe", "fp8", without(f"{EXPERT}.weight_scale"), f"{EXPERT}.weight: its scale", "complete"),
    ("packed-without-scale", "qwen3", "int4", without(f"{UP}.weight_scale"), "its scale .*up_proj.weight_scale is missing", "complete"),
    ("packed-without-shape", "qwen3", "int4", without(f"{UP}.weight_shape"), "weight_shape is missing", "complete"),
    (
        "scales-without-codes",
        "qwen3",
        "fp8",
        edit(lambda t: {n: v for n, v in t.items() if n != f"{UP}.weight"}),
        "1 tensor missing",
        "comp",
    ),
    ("scale-shape", "qwen3", "fp8", edit(lambda t: t | {SCALE: torch.ones(1, 1)}), r"F32 \[1, 1\] does not fit .* needs \[2, 1\]", "rest"),
    ("scale-of-integers", "qwen3", "fp8", edit(lambda t: t | {SCALE: torch.ones(2, 1).int()}), r"I32 \[2, 1\] does not fit", "restore"),
    (
        "one-weight-plain",
        "qwen3",
        "fp8",
        edit(lambda t: {n: v.bfloat16() if n == f"{UP}.weight" else v for n, v in t.items() if n != SCALE}),
        "up_proj.weight: BF16; quantization_config says fp8-block",
        "list the module",
    ),
    (
        "plain-with-a-scale",
        "qwen3",
        "fp8",
        edit(lambda t: t | {f"{UP}.weight": t[f"{UP}.weight"].bfloat16()}),
        "a scale of .*up_proj.weight, which is BF16",
        "codes and scales, or neither",
    ),
    ("codes-said-plain", "qwen3", "fp8", section(modules_to_not_convert=["lm_head", UP]), "says it is not quantised", "off the list"),
    ("e5m2", "qwen3", "fp8", edit(lambda t: t | {f"{UP}.weight": t[f"{UP}.weight"].to(torch.float8_e5m2)}), "F8_E5M2; quant", "restore"),
    (
        "codes-of-another-shape",
        "qwen3",
        "tensor",
        cut_codes,
        r"shape \[32, 64\]",
        "diff",
    ),
    ("adapter-inside", "qwen3", "bf16", edit(lambda t: t | {f"{UP}.lora_A.default.weight": torch.ones(8, 64)}), "lora_A", "merge the ada"),
    (
        "adapters-names",
        "qwen3",
        "bf16",
        edit(lambda t: {f"base_model.model.{n}": v for n, v in t.items()}),
        "begin with 'base",
        "merge the",
    ),
    ("fused-fp8-experts", "qwen3-moe", "fp8", fused_as_transformers_saves_them, "quantised experts of a layer in one tensor", "one by one"),
]


@pytest.mark.parametrize(("architecture", "fmt", "change", "match", "remedy"), [pytest.param(*row[1:], id=row[0]) for row in REFUSED])
def test_a_config_that_contradicts_the_weights_is_refused_by_all_parts(
    architecture: str, fmt: str, change: Change, match: str, remedy: str, odd: Callable[[str, str], Path], tmp_path: Path
) -> None:
    folder = odd(architecture, fmt)
    change(folder)
    parts: tuple[Callable[[], object], ...] = (
        lambda: inspect_folder(folder, ""),
        lambda: convert_folder(folder, tmp_path / "out", Bf16(), 1),
        lambda: verify_folder(folder, None, None),
        lambda: ServedModel(folder, FORMATS[fmt], read_shape(folder), "cpu").load_folder(folder),
    )
    said = set()
    for part in parts:
        with pytest.raises(UserError, match=match) as refused:
            part()
        said.add((refused.value.message, refused.value.remedy))
    assert len(said) == 1 and remedy in refused.value.remedy


def bf16_scales(folder: Path) -> None:
    edit(lambda tensors: {n: t.bfloat16() if n.endswith("scale_inv") else t for n, t in tensors.items()})(folder)


def scales_under_the_block_name(folder: Path) -> None:
    edit(lambda tensors: {n.replace("weight_scale", "weight_scale_inv"): t for n, t in tensors.items()})(folder)


def listed_as_plain(folder: Path) -> None:
    plain = "model.layers.0.self_attn.o_proj"
    edit(lambda t: {n: v.bfloat16() if n == f"{plain}.weight" else v for n, v in t.items() if n != f"{plain}.weight_scale_inv"})(folder)
    section(modules_to_not_convert=["lm_head", plain])(folder)


def layer_listed_as_plain(folder: Path) -> None:
    """As transformers reads a list: a name stands for what is below it."""
    layer = "model.layers.0."
    edit(
        lambda t: {n: v.bfloat16() if n.startswith(layer) else v for n, v in t.items() if not (n.startswith(layer) and n.endswith("_inv"))}
    )(folder)
    section(modules_to_not_convert=["lm_head", "model.layers.0.self_attn", "model.layers.0.mlp"])(folder)


def projection_listed_by_its_last_name(folder: Path) -> None:
    """As transformers reads a list: a name stands for every module whose path ends in it."""
    end = ".o_proj.weight"
    edit(lambda t: {n: v.bfloat16() if n.endswith(end) else v for n, v in t.items() if not n.endswith(f"{end}_scale_inv")})(folder)
    section(modules_to_not_convert=["lm_head", "o_proj"])(folder)


def equal_head(folder: Path) -> None:
    edit(lambda t: t | {"lm_head.weight": t["model.embed_tokens.weight"].clone()})(folder)
    set_config(folder, tie_word_embeddings=True)


READ: list[tuple[str, str, str, Change, str]] = [
    ("fp8", "qwen3", "fp8", lambda _: None, ""),
    ("int4", "qwen3-moe", "int4", lambda _: None, ""),
    ("int4-experts", "deepseek-v3", "experts", lambda _: None, ""),
    ("int4-experts-as-moonshot-lists-the-rest", "deepseek-v3", "experts", section(ignore=MOONSHOT), ""),
    ("fp8-latent-attention", "deepseek-v3", "fp8", lambda _: None, ""),
    ("fp8-without-a-list", "moonlight", "fp8", section(modules_to_not_convert=None), ""),
    ("fp8-with-activation-scales", "qwen3", "fp8", edit(lambda t: t | {f"{UP}.input_scale": torch.ones(1)}), ""),
    ("fp8-with-cache-scales", "qwen3", "fp8", edit(lambda t: t | {"model.layers.0.self_attn.k_scale": torch.ones(1)}), "KV cache"),
    ("fp8-with-bf16-scales", "qwen3", "fp8", bf16_scales, ""),
    ("tensor-scales-under-the-block-name", "qwen3", "tensor", scales_under_the_block_name, ""),
    (
        "fp8-with-one-module-plain-as-listed",
        "qwen3",
        "fp8",
        listed_as_plain,
        "",
    ),
    ("fp8-with-a-projection-plain-as-listed", "qwen3", "fp8", projection_listed_by_its_last_name, ""),
    ("fp8-with-a-layer-plain-as-listed", "qwen3", "fp8", layer_listed_as_plain, ""),
    (
        "tied-fp8-with-an-equal-head",
        "qwen3",
        "fp8",
        equal_head,
        "ties the head",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("architecture", "fmt", "change", "note"), [pytest.param(*row[1:], id=row[0]) for row in READ])
def test_a_quantised_folder_is_read_alike_by_all_parts(
    architecture: str, fmt: str, change: Change, note: str, odd: Callable[[str, str], Path], tmp_path: Path
) -> None:
    folder = odd(architecture, fmt)
    change(folder)
    found = inspect_folder(folder, "")
    assert found.quantization.format == FORMATS[fmt].kind and bool(note) == bool(found.notes)
    assert not note or note in found.notes[0]
    convert_folder(folder, tmp_path / "out", Bf16(), 1)
    source, plain = ModelFolder(folder), ModelFolder(tmp_path / "out")
    assert sorted(source.names()) == sorted(plain.names())
    for name in source.names():
        assert torch.equal(source.weight(name).values().bfloat16(), plain.weight(name).values().bfloat16()), name
    assert verify_folder(tmp_path / "out", folder, None).problems == ()
    assert verify_folder(folder, None, None).problems == ()


def test_fp8_as_transformers_itself_saves_it_is_read(odd: Callable[[str, str], Path], tmp_path: Path, monkeypatch: Any) -> None:
    """Its default puts experts back one by one; without a GPU it refuses to load FP8, so it is told of one."""
    folder = odd("qwen3-moe", "fp8")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (9, 0))
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    model.save_pretrained(tmp_path / "saved")
    model.save_pretrained(tmp_path / "fused", save_original_format=False)
    monkeypatch.undo()
    ours, theirs = ModelFolder(folder), ModelFolder(tmp_path / "saved")
    assert sorted(ours.names()) == sorted(theirs.names())
    for name in ours.names():
        assert torch.equal(ours.weight(name).values(), theirs.weight(name).values()), name
    with pytest.raises(UserError, match=r"experts\.down_proj: F8_E4M3 \[4, 64, 96\]: quantised experts of a layer in one tensor"):
        read_contents(tmp_path / "fused")
