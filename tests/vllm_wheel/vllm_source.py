"""Of a vLLM wheel that is not installed: its functions about names, and what its model classes say of theirs, read from their source."""

import ast
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.tools.check_engine_rules import functions

MODELS = "vllm/model_executor/models"


@dataclass(frozen=True)
class Names:
    """What a model class says of names; each is empty where it says nothing, or says it in code."""

    fused: Mapping[str, list[str]] = field(default_factory=dict)
    """packed_modules_mapping."""
    substrings: Mapping[str, str] = field(default_factory=dict)
    prefixes: Mapping[str, str] = field(default_factory=dict)
    """Of hf_to_vllm_mapper: how modules, and entries of lists, are called instead."""

    def called(self, name: str) -> str:
        """Return what vLLM makes of a name in a checkpoint."""
        for old, new in self.substrings.items():
            name = name.replace(old, new, 1)
        for old, new in self.prefixes.items():
            if name.startswith(old):
                name = name.replace(old, new, 1)
        return name


class Vllm:
    """One wheel."""

    def __init__(self, wheel: Path) -> None:
        self._archive = zipfile.ZipFile(wheel)
        found = functions(wheel, "vllm")
        self.is_layer_skipped: Callable[..., bool] = found["is_layer_skipped"]
        self.should_ignore_layer: Callable[..., bool] = found["should_ignore_layer"]

    @cached_property
    def _registered(self) -> dict[str, tuple[str, str]]:
        """Architecture -> (module, class), of language models alone and inside others."""
        found: dict[str, tuple[str, str]] = {}
        for node in ast.parse(self._archive.read(f"{MODELS}/registry.py")).body:
            names = [t.id for t in node.targets if isinstance(t, ast.Name)] if isinstance(node, ast.Assign) else []
            if isinstance(node, ast.Assign) and {"_TEXT_GENERATION_MODELS", "_MULTIMODAL_MODELS"}.intersection(names):
                found |= ast.literal_eval(node.value)
        return found

    def knows(self, architecture: str) -> bool:
        """Return whether a class is in its registry."""
        return architecture in self._registered

    def names(self, architecture: str) -> Names:
        """Return what the class of an architecture says of names, by itself or by its bases."""
        said = dict(self._attributes(*self._registered[architecture]))
        fused, mapper = said.get("packed_modules_mapping"), said.get("hf_to_vllm_mapper")
        keywords = {k.arg: k.value for k in mapper.keywords} if isinstance(mapper, ast.Call) else {}
        substrings, prefixes = (_literal(keywords.get(key)) for key in ("orig_to_new_substr", "orig_to_new_prefix"))
        return Names(_literal(fused), substrings, prefixes)

    def _attributes(self, module: str, name: str) -> Iterator[tuple[str, ast.expr]]:
        """Yield (attribute, value) of a class, those of its bases (also of other files of the folder) first."""
        path = f"{MODELS}/{module}.py"
        body = ast.parse(self._archive.read(path)).body if path in self._archive.namelist() else []
        places = {alias.asname or alias.name: node.module for node in body if isinstance(node, ast.ImportFrom) for alias in node.names}
        for node in (node for node in body if isinstance(node, ast.ClassDef) and node.name == name):
            for base in (base.id for base in reversed(node.bases) if isinstance(base, ast.Name)):
                yield from self._attributes(places.get(base) or module, base)
            for line in node.body:
                if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name):
                    yield line.targets[0].id, line.value


def _literal(node: ast.expr | None) -> dict[str, Any]:
    """Return a dictionary that is written out, an empty one for anything else."""
    try:
        found = dict(ast.literal_eval(node)) if node is not None else {}
    except ValueError:
        return {}
    return {key: value for key, value in found.items() if value is not None}  # None drops a tensor, and calls no module otherwise
