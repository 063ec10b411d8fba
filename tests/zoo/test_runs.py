"""Families that people train without a table: three steps of a run in two precision pairs (`make test-zoo`)."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.zoo.families import ALL, Case
from tests.zoo.runs import ran, rows, write_inputs

FAMILIES = ("glm4_moe", "qwen3_5", "qwen3_5_text", "qwen3_5_moe_text", "glm_moe_dsa", "kimi_linear")
CASES = tuple(case for case in ALL if case.model_type in FAMILIES)


@pytest.mark.parametrize("pair", ["int4-qat/int4", "fp8/fp8"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.model_type)
def test_three_steps_of_a_run_train_and_serve_what_the_class_computes(
    case: Case, pair: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LPRL_VOLUMES_ROOT", str(tmp_path))
    write_inputs(tmp_path, case, 16)
    folder = ran(tmp_path, case, pair, {"algorithm": {"steps": 3}})
    found = rows(folder, "metrics.jsonl")
    assert [row["step"] for row in found] == [1, 2, 3]
    for row in found:
        assert row["grad_norm"] > 0 and row["quantization_error"] > 0
        assert row["k3"] < 1e-5, "trainer and engine compute the same"
    source, exported = (load_file(path) for path in (tmp_path / "all/model/model.safetensors", folder / "export/bf16/model.safetensors"))
    assert exported.keys() == source.keys()
    moved = {name for name, tensor in exported.items() if not torch.equal(tensor, source[name])}
    assert any(".layers.1." in name for name in moved) and not any("visual" in name for name in moved), "towers are copied"
