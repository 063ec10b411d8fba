"""gpt-oss as it is published, experts in MXFP4: unpacked to what transformers' own code makes of the same bytes."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.zoo.read_back import logits
from tests.zoo.tiny import save, tiny_model
from torch import Tensor
from transformers import GptOssForCausalLM
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

from lprl_api.errors import UserError
from lprl_api.model.formats import Bf16, Fp8Block
from lprl_api.model.look import Look
from lprl_workload.convert.export import convert_folder
from lprl_workload.convert.inspect import inspect_folder, look_at
from lprl_workload.convert.verify import verify_folder

DOWN = "model.layers.0.mlp.experts.down_proj"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save(tiny_model("gpt_oss", {}), tmp_path_factory.mktemp("gpt-oss") / "mxfp4")
    generator = torch.Generator().manual_seed(0)
    found: dict[str, Tensor] = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        if name.endswith(("experts.gate_up_proj", "experts.down_proj")):
            experts, cols, rows = tensor.shape
            found[f"{name}_blocks"] = torch.randint(0, 256, (experts, rows, cols // 32, 16), generator=generator, dtype=torch.uint8)
            found[f"{name}_scales"] = torch.randint(118, 124, (experts, rows, cols // 32), generator=generator, dtype=torch.uint8)
        else:
            found[name] = tensor
    save_file(found, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "lm_head"]}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_experts_are_unpacked_as_transformers_does(published: Path, tmp_path: Path) -> None:
    convert_folder(published, tmp_path / "bf16", Bf16(), 1)
    packed, plain = load_file(published / "model.safetensors"), load_file(tmp_path / "bf16" / "model.safetensors")
    assert {name for name in plain if "_blocks" in name or "_scales" in name} == set()
    for name in (name.removesuffix("_blocks") for name in packed if name.endswith("_blocks")):
        assert torch.equal(plain[name], convert_moe_packed_tensors(packed[f"{name}_blocks"], packed[f"{name}_scales"])), name
    assert all(torch.equal(plain[name], packed[name]) for name in plain if name in packed)
    assert "quantization_config" not in json.loads((tmp_path / "bf16" / "config.json").read_text())
    assert verify_folder(tmp_path / "bf16", published, None).problems == ()
    assert logits(tmp_path / "bf16", GptOssForCausalLM).isfinite().all()


def test_inspect_says_it_and_experts_are_quantised_no_other_way(published: Path, tmp_path: Path) -> None:
    looked = look_at(published)
    assert isinstance(looked, Look) and looked.notes[0] == "experts are MXFP4: --to bf16 unpacks them" and looked.inspection is None
    with pytest.raises(UserError, match=r"config\.json: experts are MXFP4, which no trainer reads") as told:
        inspect_folder(published, "")
    assert told.value.remedy == "unpack them first (lprl convert SOURCE TARGET --to bf16), and train that folder"
    with pytest.raises(UserError, match="its experts are stored"):
        convert_folder(published, tmp_path / "fp8", Fp8Block(), 1)
    convert_folder(published, tmp_path / "fp8", Fp8Block(exclude_modules=("*.experts.*",)), 1)
    assert verify_folder(tmp_path / "fp8", published, None).problems == ()


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({f"{DOWN}_scales": None}, f"tensor {DOWN}_blocks: its _scales are missing"),
        ({f"{DOWN}_scales": torch.zeros(4, 128, 3, dtype=torch.uint8)}, rf"tensor {DOWN}_blocks: .* with scales \[4, 128, 3\]"),
        ({f"{DOWN}_scales": torch.full((4, 128, 8), 255, dtype=torch.uint8)}, "NaN or infinite"),
    ],
    ids=["no-scales", "other-scales", "nan"],
)
def test_what_does_not_fit_together_is_named(published: Path, tmp_path: Path, tensors: dict[str, Tensor | None], message: str) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    (folder / "config.json").write_bytes((published / "config.json").read_bytes())
    changed = {name: t for name, t in (load_file(published / "model.safetensors") | tensors).items() if t is not None}
    save_file(changed, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=message):
        convert_folder(folder, tmp_path / "out", Bf16(), 1)
