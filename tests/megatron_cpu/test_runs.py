"""Whole runs of families that are built by their class: conversion, Megatron, pushes, the torch engine, export."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.megatron_cpu.models import is_beside
from tests.zoo.families import ALL, Case
from tests.zoo.runs import PAIRS, ran, rows, write_inputs

CASES = {
    "qwen3_5": ("qwen3_5", "fp8/fp8"),
    "qwen3_5_moe": ("qwen3_5_moe", "int4-qat/int4"),
    "glm_moe_dsa": ("glm_moe_dsa", "fp8/fp8"),
}


@pytest.mark.parametrize("name", CASES)
def test_three_steps_train_and_serve_what_the_class_computes(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model_type, pair = CASES[name]
    case: Case = next(case for case in ALL if case.model_type == model_type)
    monkeypatch.setenv("LPRL_VOLUMES_ROOT", str(tmp_path))
    write_inputs(tmp_path, case, 16)
    folder = ran(tmp_path, case, pair, {"algorithm": {"steps": 3}, "precision": PAIRS[pair], "backends": {"trainer": "megatron"}})
    found = rows(folder, "metrics.jsonl")
    assert [row["step"] for row in found] == [1, 2, 3]
    assert all(row["grad_norm"] > 0 and row["quantization_error"] > 0 and row["k3"] < 1e-5 for row in found), found
    source, exported = (load_file(path) for path in (tmp_path / "all/model/model.safetensors", folder / "export/bf16/model.safetensors"))
    assert exported.keys() == source.keys()
    moved = {key for key, tensor in exported.items() if not torch.equal(tensor, source[key])}
    assert any(".layers.1." in key for key in moved) and not any(is_beside(key) for key in moved), moved
