"""What tests of weight pushes share."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.contract.push_site import Site, weights_of
from torch import Tensor

from lprl_api.model.formats import WeightFormat
from lprl_fixtures.generate import ModelOptions, generate_model
from lprl_fixtures.pushes import Mesh


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    found = tmp_path_factory.mktemp("model")
    generate_model(found, ModelOptions("qwen3-moe", "tiny"))
    return found


@pytest.fixture(scope="module")
def weights(folder: Path) -> dict[str, Tensor]:
    return weights_of(folder)


@pytest.fixture
def site(folder: Path, tmp_path: Path) -> Iterator[Callable[..., Site]]:
    made: list[Site] = []

    def make(way: str, fmt: WeightFormat, mesh: Mesh, model: Path = folder, **options: Any) -> Site:
        made.append(Site(way, model, fmt, mesh, tmp_path, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()
