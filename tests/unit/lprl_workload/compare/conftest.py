"""Small models of several layers whose weights are large enough that formats make a difference, and a file of texts."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from lprl_api.model.formats import WeightFormat
from lprl_fixtures.generate import ModelOptions, generate_model
from lprl_workload.convert.export import convert_folder


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def write_model(folder: Path, architecture: Any, layers: int) -> Path:
    """Write a model of `layers` layers by transformers itself, with the tokenizer of the small models."""
    generate_model(folder, ModelOptions(architecture=architecture, size="tiny"))
    document = json.loads((folder / "config.json").read_text()) | {"num_hidden_layers": layers, "initializer_range": 0.15}
    (folder / "config.json").write_text(json.dumps(document))
    config = transformers.AutoConfig.from_pretrained(folder)
    torch.manual_seed(1)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    for file in folder.glob("*.safetensors*"):
        file.unlink()
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], Path]:
    root, made = tmp_path_factory.mktemp("compare"), dict[tuple[str, int], Path]()

    def get(architecture: str, layers: int = 2) -> Path:
        key = (architecture, layers)
        if key not in made:
            made[key] = write_model(root / f"{architecture}-{layers}", architecture, layers)
        return made[key]

    return get


@pytest.fixture
def converted(tmp_path: Path) -> Callable[[Path, WeightFormat], Path]:
    """Return a function that converts a folder."""

    def convert(source: Path, fmt: WeightFormat) -> Path:
        convert_folder(source, tmp_path / "converted", fmt, 1)
        return tmp_path / "converted"

    return convert


@pytest.fixture
def rewritten() -> Callable[..., Path]:
    """Return a function (folder, copy, change) that copies a one-file folder with every tensor changed."""

    def rewrite(folder: Path, copy: Path, change: Callable[[str, torch.Tensor], torch.Tensor]) -> Path:
        shutil.copytree(folder, copy)
        file = copy / "model.safetensors"
        save_file({name: change(name, tensor) for name, tensor in load_file(file).items()}, file, metadata={"format": "pt"})
        return copy

    return rewrite


def write_texts(file: Path) -> Path:
    """Write rows whose answers count, and rows without one, of several lengths."""
    rows: list[dict[str, Any]] = [
        {"prompt": [{"role": "user", "content": "ab12"}, {"role": "assistant", "content": "the answer 12"}]},
        {"prompt": [{"role": "user", "content": "which digit is in xsv5vv"}]},
        {"prompt": "plain question 7"},
        {"prompt": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "9"}]},
    ]
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return file


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    return write_texts(tmp_path / "texts.jsonl")
