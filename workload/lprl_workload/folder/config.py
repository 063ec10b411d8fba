"""config.json of a folder -> ModelShape and WeightFormat, with errors that name the file and say what to do."""

from pathlib import Path

from lprl_api import config_file
from lprl_api.formats import WeightFormat
from lprl_api.model_shape import ModelShape
from lprl_workload.folder.header import read_json

CONFIG = "config.json"


def read_shape(folder: Path) -> ModelShape:
    """Return the shape of a model folder. Raises UserError naming file and key."""
    return config_file.shape_of(read_json(folder / CONFIG), str(folder / CONFIG))


def read_format(folder: Path) -> WeightFormat:
    """Return the format a model folder is in. Raises UserError naming file and key."""
    return config_file.format_of(read_json(folder / CONFIG), str(folder / CONFIG))


def read_model_class(folder: Path) -> str | None:
    """Return the class of a model whose language model is a part of it (`text_config`), None for a plain language model."""
    return config_file.whole_model_of(read_json(folder / CONFIG), str(folder / CONFIG))


def check_trainable(folder: Path) -> None:
    """Refuse a folder that can be converted and served but not trained: raises UserError for a model inside `text_config`."""
    config_file.check_trainable(read_json(folder / CONFIG), str(folder / CONFIG))
