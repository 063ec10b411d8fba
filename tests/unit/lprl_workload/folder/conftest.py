from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import copytree

import pytest
import torch

from lprl_fixtures.generate import ModelOptions, generate_model

Make = Callable[[str], Path]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def plain_models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function architecture -> folder of a tiny model in two shards, made once."""
    root, made = tmp_path_factory.mktemp("plain"), dict[str, Path]()

    def plain(architecture: str) -> Path:
        if architecture not in made:
            made[architecture] = root / architecture
            generate_model(root / architecture, ModelOptions(architecture=architecture, size="tiny", shards=2))  # type: ignore[arg-type]
        return made[architecture]

    return plain


@pytest.fixture
def make(plain_models: Callable[[str], Path], tmp_path: Path) -> Make:
    """Return a function architecture -> a copy of its plain folder, to be changed."""

    def copied(architecture: str) -> Path:
        return Path(copytree(plain_models(architecture), tmp_path / "odd"))

    return copied
