"""Verification finds what was done to a folder after it was published, and says how foreign an INT4 folder is."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lprl_api.model.formats import Bf16, Fp8Block, Int4Group
from lprl_workload.convert.export import convert_folder
from lprl_workload.convert.verify import difference, verify_folder
from lprl_workload.quant.int4_group import pack

NAME = "model.layers.1.mlp.experts.1.up_proj.weight"


def rewrite(folder: Path, name: str, change: Any) -> None:
    """Change one tensor in place."""
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    path = folder / index[name]
    tensors = load_file(path)
    tensors[name] = change(tensors[name])
    save_file(tensors, path, metadata={"format": "pt"})


def negated(codes: torch.Tensor) -> torch.Tensor:
    return (-codes.float()).to(codes.dtype)


def test_second_opinion_on_every_tensor(make_model: Any, tmp_path: Path) -> None:
    source = make_model()
    convert_folder(source, tmp_path / "t", Fp8Block(), 1)
    found = verify_folder(tmp_path / "t", source, 0.05)
    assert found.problems == () and found.worst is not None
    assert 0.02 < found.worst.relative_rms_error < 0.04
    assert {c.by_the_rule for c in found.tensors} == {True, None}
    assert verify_folder(tmp_path / "t", source, 0.001).problems


@pytest.mark.parametrize(
    ("harm", "match"),
    [
        pytest.param(lambda f: (f / "tokenizer.json").write_text("{}"), "tokenizer.json: does not match", id="file-changed"),
        pytest.param(lambda f: (f / "extra.safetensors").write_text(""), "extra.safetensors: not in manifest.json", id="file-added"),
        pytest.param(lambda f: (f / "generation_config.json").unlink(), "generation_config.json: missing", id="file-removed"),
        pytest.param(lambda f: rewrite(f, NAME, negated), "differs from what the quantizer makes", id="other-bytes"),
    ],
)
def test_harm_is_found(make_model: Any, tmp_path: Path, harm: Any, match: str) -> None:
    source = make_model()
    convert_folder(source, tmp_path / "t", Fp8Block(), 1)
    harm(tmp_path / "t")
    assert any(match in problem for problem in verify_folder(tmp_path / "t", source, None).problems)


def test_wrong_source_is_found(make_model: Any, tmp_path: Path) -> None:
    source, other = make_model("a", seed=0), make_model("b", seed=1)
    convert_folder(source, tmp_path / "t", Fp8Block(), 1)
    problems = verify_folder(tmp_path / "t", other, None).problems
    assert any("is not the source this folder was made from" in p for p in problems)


def test_foreign_int4_is_measured(make_model: Any, tmp_path: Path) -> None:
    source, folder = make_model(), tmp_path / "t"
    convert_folder(source, folder, Int4Group(group_size=32), 1)
    own = verify_folder(folder, None, None).rule_difference
    assert own is not None and own.codes_minus_8 == 0
    for name in ("manifest.json", "conversion_report.json"):
        (folder / name).unlink()  # foreign folders have none
    codes = torch.randint(-8, 8, (96, 64), dtype=torch.int8, generator=torch.Generator().manual_seed(0))
    rewrite(folder, f"{NAME}_packed", lambda _: pack(codes))
    foreign = verify_folder(folder, None, None)
    assert foreign.problems == () and foreign.rule_difference is not None
    assert foreign.rule_difference.codes_minus_8 == int((codes == -8).sum()) > 0
    assert foreign.rule_difference.changed_values > own.changed_values
    assert foreign.rule_difference.relative_rms > own.relative_rms
    # Every group of random codes has one of -8 or 7: its scale is found again.
    assert own.changed_on_its_grid == 0 and foreign.rule_difference.changed_on_its_grid < foreign.rule_difference.changed_values / 50
    convert_folder(folder, tmp_path / "back", Bf16(), 1)
    assert verify_folder(tmp_path / "back", folder, None).problems == ()


def with_nan(tensor: torch.Tensor) -> torch.Tensor:
    tensor.view(-1)[3] = float("nan")
    return tensor


def test_values_that_are_no_numbers_are_a_problem(make_model: Any, tmp_path: Path) -> None:
    """pydantic refused the NaN of a comparison, and the check died of it."""
    source, folder = make_model(), tmp_path / "t"
    convert_folder(source, folder, Int4Group(group_size=32), 1)
    rewrite(source, "model.layers.0.input_layernorm.weight", with_nan)
    rewrite(folder, f"{NAME}_scale", with_nan)
    problems = verify_folder(folder, source, 0.2).problems
    assert any("tensor model.layers.0.input_layernorm.weight: cannot be compared: NaN" in p for p in problems)
    assert any(f"tensor {NAME}: cannot be compared: NaN" in p for p in problems)
    assert any(p.startswith(f"{folder}: tensor {NAME}: NaN or infinite") for p in problems), "nor can it be quantised again"


@pytest.mark.parametrize("content", ["{", "[]", None], ids=["cut", "no-manifest", "removed"])
def test_a_conversion_without_a_valid_manifest_is_a_problem(make_model: Any, tmp_path: Path, content: str | None) -> None:
    source, folder = make_model(), tmp_path / "t"
    convert_folder(source, folder, Fp8Block(), 1)
    if content is None:
        (folder / "manifest.json").unlink()
    else:
        (folder / "manifest.json").write_text(content)
    rewrite(folder, NAME, negated)
    found = verify_folder(folder, None, None)
    assert found.files == 0 and len(found.problems) == 1 and found.problems[0].startswith("manifest.json: ")
    assert verify_folder(source, None, None).problems == (), "a model that no conversion made has none"


def test_difference() -> None:
    assert difference(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 2.0])) == (pytest.approx((1 / 5) ** 0.5), 1.0)
    assert difference(torch.zeros(0), torch.zeros(0)) == (0.0, 0.0)
    assert difference(torch.tensor([2.0]), torch.zeros(1)) == (2.0, 2.0)
