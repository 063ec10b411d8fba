"""config.json of a folder -> ModelShape and WeightFormat, with errors that name the file and say what to do."""

from pathlib import Path
from typing import Any

from lprl_api.errors import UserError
from lprl_api.model import config_file
from lprl_api.model.config_reader import check_counts
from lprl_api.model.formats import WeightFormat
from lprl_api.model.formats.mxfp4 import Mxfp4
from lprl_api.model.hf_quantization import is_mxfp4, without_lists
from lprl_api.model.known import has_table
from lprl_api.model.model_shape import ModelShape
from lprl_workload.folder.header import read_json

CONFIG = "config.json"


def read_config(folder: Path) -> dict[str, Any]:
    """Return the config.json of a model folder. Raises UserError; where there is none, by what the folder holds instead."""
    path = folder / CONFIG
    if path.exists() or not folder.is_dir():
        found = read_json(path)
        check_counts(found, str(path))
        return found
    if snapshots := sorted(folder.glob(f"snapshots/*/{CONFIG}")):
        raise UserError(
            f"{path}: no such file; {folder} is a cache of Hugging Face", f"name the folder of a revision: {snapshots[-1].parent}"
        )
    if (folder / "adapter_config.json").exists():
        raise UserError(f"{path}: no such file; {folder} holds an adapter", "merge it into its base model first, and name that folder")
    return read_json(path)


def read_shape(folder: Path) -> ModelShape:
    """Return the shape of a model folder. Raises UserError naming file and key."""
    return config_file.shape_of(read_config(folder), str(folder / CONFIG))


def read_known_shape(folder: Path) -> ModelShape | None:
    """Return the shape of a model folder whose family has a table, None for others. Raises UserError naming file and key."""
    return read_shape(folder) if has_table(read_config(folder)) else None


def read_format(folder: Path) -> WeightFormat:
    """Return the format a model folder is in; of a family without a table which modules it leaves out is read from the tensors.

    Raises UserError naming file and key.
    """
    config = read_config(folder)
    if not has_table(config) and is_mxfp4(config):
        return Mxfp4()  # type: ignore[return-value]  # of no WeightFormat: nothing is converted to it
    return config_file.format_of(config if has_table(config) else without_lists(config), str(folder / CONFIG))


def read_model_class(folder: Path) -> str | None:
    """Return the class of a model whose language model is a part of it (`text_config`), None for a plain language model."""
    return config_file.whole_model_of(read_config(folder), str(folder / CONFIG))


def check_trainable(folder: Path) -> None:
    """Refuse a folder that can be converted and served but not trained: raises UserError for a model inside `text_config`."""
    config_file.check_trainable(read_config(folder), str(folder / CONFIG))
