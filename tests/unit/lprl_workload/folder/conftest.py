from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import copytree

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.unit.lprl_workload.folder.odd_folders import FORMATS, INDEX

from lprl_fixtures.generate import ModelOptions, generate_model
from lprl_workload.convert.export import convert_folder

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


@pytest.fixture(scope="module")
def quantised(plain_models: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """Return a function (architecture, format) -> folder of one file, converted once."""
    root = tmp_path_factory.mktemp("quantised")

    def made(architecture: str, fmt: str) -> Path:
        target = root / f"{architecture}-{fmt}"
        if not target.exists():
            convert_folder(plain_models(architecture), target, FORMATS[fmt], 1)
            tensors = {name: tensor for file in target.glob("*.safetensors") for name, tensor in load_file(file).items()}
            for path in (*target.glob("*.safetensors"), target / INDEX, target / "manifest.json", target / "conversion_report.json"):
                path.unlink()
            save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
        return target

    return made
