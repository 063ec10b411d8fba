"""Small real model folders for the tests of this folder."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lprl_api.model.content_key import content_key
from lprl_api.model.formats import WeightFormat
from lprl_api.model.hf_config import shape_from_config
from lprl_api.spec.sources import ModelSource, VolumePath
from lprl_api.wire.runconfig import ConvertConfig
from lprl_fixtures.generate import ModelOptions, generate_model
from lprl_workload.convert.cache import claim, partial_of
from lprl_workload.convert.fingerprint import fingerprint
from lprl_workload.convert.run import convert_shards
from lprl_workload.folder.header import read_json
from lprl_workload.folder.model import read_contents

MakeModel = Callable[..., Path]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def make_model(tmp_path: Path) -> MakeModel:
    """Return a function (name, **ModelOptions) -> folder of a tiny model in two shards."""

    def make(name: str = "source", **options: object) -> Path:
        generate_model(tmp_path / name, ModelOptions(**({"architecture": "qwen3-moe", "size": "tiny", "shards": 2} | options)))
        return tmp_path / name

    return make


def _config(source: Path, fmt: WeightFormat, **changes: object) -> ConvertConfig:
    found = fingerprint(source, "")
    config = ConvertConfig(
        source=ModelSource(volume="models", path=source.name),
        target=VolumePath(volume="models", path="target"),
        format=fmt,
        fingerprint=found,
        content_key=content_key(found, fmt),
        workers=1,
        threads=1,
        max_relative_rms_error=None,
    )
    return config.model_copy(update=changes)


@pytest.fixture
def converted() -> Callable[[Path, Path, WeightFormat], ConvertConfig]:
    """Return a function that converts every shard into TARGET.partial and returns the configuration."""

    def convert(source: Path, target: Path, fmt: WeightFormat) -> ConvertConfig:
        config = _config(source, fmt)
        claim(partial_of(target), config.content_key)
        shape = shape_from_config(read_json(source / "config.json"))
        convert_shards(source, partial_of(target), fmt, shape, tuple(read_contents(source).shards), 1, lambda _: None)
        return config

    return convert


@pytest.fixture
def config_for() -> Callable[..., ConvertConfig]:
    """Return a function (source, format, **changes) -> configuration of a conversion in volume `models`."""
    return _config
