"""Every family that is trained by its class: three steps of a run in two precision pairs (`make test-zoo`)."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.zoo.families import ALL, TABLES_INSIDE, Case
from tests.zoo.runs import PAIRS, left_out, ran, rows, write_inputs

from lprl_api.errors import UserError
from lprl_api.model.proven import PROVEN

CASES = tuple(case for case in (*ALL, *TABLES_INSIDE) if case.model_type in PROVEN)
OWN_EXPERTS = ("nemotron_h",)
"""Experts computed in a way of the class's own, where FP8 activations are refused: FP8 weights alone."""


@pytest.mark.parametrize("pair", ["int4-qat/int4", "fp8/fp8"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.model_type)
def test_three_steps_of_a_run_train_and_serve_what_the_class_computes(
    case: Case, pair: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where its experts are refused, the rest: with what the refusals say to leave out, and nothing more."""
    monkeypatch.setenv("LPRL_VOLUMES_ROOT", str(tmp_path))
    write_inputs(tmp_path, case, 16)
    patterns = left_out(tmp_path, case, pair)
    assert bool(patterns) == bool(case.refused)
    precision = {**PAIRS[pair], "exclude_modules": patterns}
    if case.model_type in OWN_EXPERTS and pair == "fp8/fp8":
        with pytest.raises(UserError, match="in a way of its own, without FP8 activations"):
            ran(tmp_path, case, pair, {"algorithm": {"steps": 3}, "precision": precision})
        shutil.rmtree(tmp_path / "all/served")
        shutil.rmtree(tmp_path / "all/runs", ignore_errors=True)
        precision = {"training": "fp8-qat", "rollout": "fp8", "fp8": {"activations": "none"}}
    folder = ran(tmp_path, case, pair, {"algorithm": {"steps": 3}, "precision": precision})
    found = rows(folder, "metrics.jsonl")
    assert [row["step"] for row in found] == [1, 2, 3]
    for row in found:
        assert row["grad_norm"] > 0 and row["quantization_error"] > 0
        assert row["k3"] < 1e-5, "trainer and engine compute the same"
    source, exported = (load_file(path) for path in (tmp_path / "all/model/model.safetensors", folder / "export/bf16/model.safetensors"))
    assert exported.keys() == source.keys()
    moved = {name for name, tensor in exported.items() if not torch.equal(tensor, source[name])}
    text = json.loads((tmp_path / "all/model/config.json").read_text())
    assert any(".layers.1." in name for name in moved), moved
    if "text_config" in text:
        assert not any(part in name for name in moved for part in ("visual", "vision", "projector")), "towers are copied"


def test_every_family_that_is_trained_is_run() -> None:
    assert {case.model_type for case in CASES} == set(PROVEN)
