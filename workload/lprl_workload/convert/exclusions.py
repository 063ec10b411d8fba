"""Exclusions of a command line against the model they are meant for."""

from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path

from lprl_api.errors import UserError
from lprl_api.model.formats import Bf16
from lprl_workload.convert.weights import ModelFolder
from lprl_workload.folder.config import read_known_shape
from lprl_workload.folder.selection import selection_of


def check_exclusions(patterns: Iterable[str], source: Path) -> None:
    """Refuse a pattern of the command line that matches no module of the source: a misspelt one would quantise what it names.

    Manifests are not held to this: one list may serve several models.
    """
    folder = ModelFolder(source)
    selection = selection_of(Bf16(), read_known_shape(source), folder.index)
    names = (part for name in folder.names() for part in selection.parts(name))
    modules = {name.removesuffix(".weight") for name in names}
    for pattern in patterns:
        if not any(fnmatchcase(module, pattern) for module in modules):
            raise UserError(
                f"--exclude {pattern}: matches no module of {source}",
                "patterns match whole module names, such as model.layers.0.self_attn.q_proj or *.q_proj; quote the *",
            )
