"""config.json of a folder -> ModelShape and WeightFormat, with errors that name the file and say what to do."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from lprl_api.errors import UserError
from lprl_api.formats import WeightFormat
from lprl_api.hf_config import model_class, shape_from_config
from lprl_api.model_shape import ModelShape
from lprl_workload.folder.header import read_json
from lprl_workload.quant.config_json import parse_quantization_config

CONFIG = "config.json"
_T = TypeVar("_T")


def read_shape(folder: Path) -> ModelShape:
    """Return the shape of a model folder. Raises UserError naming file and key."""
    return _of(folder, shape_from_config, "name a model of a supported family, with the config.json it was published with")


def read_format(folder: Path) -> WeightFormat:
    """Return the format a model folder is in. Raises UserError naming file and key."""
    return _of(folder, parse_quantization_config, "use the model's BF16, FP8 or compressed-tensors INT4 version")


def read_model_class(folder: Path) -> str | None:
    """Return the class of a model whose language model is a part of it (`text_config`), None for a plain language model."""
    return _of(folder, model_class, "")


def check_trainable(folder: Path) -> None:
    """Refuse a folder that can be converted and served but not trained: raises UserError for a model inside `text_config`."""
    whole = read_model_class(folder)
    if whole is not None:
        raise UserError(
            f"{folder / CONFIG}: {whole} keeps its language model in text_config, which the torch trainer cannot train",
            "name a language model of its own (its config.json has no text_config); lprl convert takes this one",
        )


def _of(folder: Path, parse: Callable[[dict[str, Any]], _T], remedy: str) -> _T:
    path = folder / CONFIG
    config = read_json(path)
    try:
        return parse(config)
    except UserError as error:
        raise UserError(f"{path}: {error.message.removeprefix(f'{CONFIG}: ')}", error.remedy or remedy) from error
