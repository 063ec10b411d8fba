"""What a folder calls the tensors of a language model that is a part of another (`text_config`) and is built by itself here."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lprl_api.errors import UserError
from lprl_api.model.checkpoint_tensors import HEAD, PREFIX
from lprl_api.model.module_kinds import text_prefix
from lprl_workload.folder.config import read_model_class
from lprl_workload.folder.model import read_contents
from lprl_workload.folder.quantized import logical

NAMING = "lprl_naming"
"""Attribute of a model whose folder has other names than its own class."""


@dataclass(frozen=True, slots=True)
class Naming:
    """Names of a folder."""

    prefix: str
    """What stands there in place of `model.`."""
    head: str
    """The output head."""

    def stored(self, name: str) -> str:
        """Return what a folder calls a tensor of the language model."""
        return self.head if name == HEAD else f"{self.prefix}{name.removeprefix(PREFIX)}"


def naming_of(folder: Path) -> Naming | None:
    """Return the names of a folder's language model; None for a model of its own, whose names are its class's. Raises UserError."""
    if read_model_class(folder) is None:
        return None
    contents = read_contents(folder)
    names = {logical(name) for name in contents.tensors}
    prefix = contents.ruled.place.prefix if contents.ruled is not None else text_prefix(names)
    if prefix is None:
        raise UserError(f"{folder}: no tensor named ...embed_tokens.weight", "complete the download")
    heads = sorted((name for name in names if name == HEAD or name.endswith(f".{HEAD}")), key=len)
    return Naming(prefix, heads[0] if heads else HEAD)


def has_more(folder: Path, family: str) -> bool:
    """Return whether a folder may hold tensors that no part of its language model is: they were held against its class when it was read."""
    return family == "other" or read_model_class(folder) is not None


def named(model: Any, folder: Path) -> Any:
    """Note on a model what its folder calls its tensors, where that is not what its class calls them; returns the model."""
    naming = naming_of(folder)
    if naming is not None:
        setattr(model, NAMING, naming)
    return model
