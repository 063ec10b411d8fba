"""The rows of shapes.py equal what shape_from_config reads (configs.json: the keys that matter, transcribed by hand)."""

import json
from pathlib import Path
from typing import Any

import pytest

from lprl_api.model.hf_config import shape_from_config
from lprl_api.model.shapes import SHAPES

CONFIGS: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "configs.json").read_text())


@pytest.mark.parametrize("name", CONFIGS)
def test_row_equals_config(name: str) -> None:
    assert shape_from_config(CONFIGS[name]) == SHAPES[name]
