"""Building a model draws nothing from torch's generator, whatever its class does."""

from pathlib import Path

import pytest
import torch
from tests.zoo.families import ALL
from tests.zoo.tiny import save, tiny_model

from lprl_workload.folder.config import read_shape
from lprl_workload.hf.model import build_model

CASES = {case.model_type: case for case in ALL if case.model_type in ("mixtral", "qwen3_next", "qwen3_5", "kimi_linear")}


@pytest.mark.parametrize("model_type", CASES)
def test_building_leaves_the_generator_as_it_was(model_type: str, tmp_path: Path) -> None:
    folder = save(tiny_model(model_type, CASES[model_type].changes), tmp_path / "model")
    shape = read_shape(folder)
    before = torch.get_rng_state()
    build_model(folder, shape, "cpu")
    assert torch.equal(torch.get_rng_state(), before)
