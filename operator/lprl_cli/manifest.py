"""Manifests from files, with the line of every field."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lprl_api import names
from lprl_api.errors import UserError

MAX_BYTES = 1024 * 1024
MAX_NODES = 50_000
"""Nodes after aliases are expanded: a small file must not grow into a large one."""
_Loader: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Manifest:
    """One document of a file."""

    document: dict[str, Any]
    file: str
    lines: Mapping[str, int]
    """Line by field path (`spec.topology.nodes`, `spec.volumes.models`, `a[0]`), counted from 1."""

    def where(self, path: str) -> str:
        """Return FILE:LINE of a field, or of its nearest parent when it is absent."""
        while path and path not in self.lines:
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return f"{self.file}:{self.lines.get(path, 1)}"


def load(file: str) -> list[Manifest]:
    """Return the LowPrecisionRLJob documents of a YAML or JSON file; `-` reads standard input. Other kinds are skipped.

    Raises:
        UserError: the file is missing, too large, no YAML, or holds no such document.

    """
    text = _read(file)
    try:
        nodes = [node for node in yaml.compose_all(text, Loader=_Loader) if node is not None]
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{file}{line}: {error.problem or 'no YAML'}", "indent with spaces and quote text that holds ': '") from None
    except yaml.YAMLError as error:
        raise UserError(f"{file}: no YAML: {error}") from None
    found = [_manifest(node, file) for node in nodes]
    jobs = [m for m in found if m is not None]
    if not jobs:
        raise UserError(f"{file}: no {names.KIND} in it", f"start it with apiVersion: {names.API_VERSION} and kind: {names.KIND}")
    return jobs


def load_one(file: str, name: str | None = None) -> Manifest:
    """Return the one job of a file, or the one named."""
    found = load(file)
    if name is not None:
        found = [m for m in found if m.document.get("metadata", {}).get("name") == name]
    if len(found) != 1:
        raise UserError(f"{file}: {len(found)} jobs, need one", "name it with --name")
    return found[0]


def _read(file: str) -> str:
    try:
        data = sys.stdin.buffer.read(MAX_BYTES + 1) if file == "-" else Path(file).read_bytes()
        if len(data) > MAX_BYTES:
            raise UserError(f"{file}: larger than {MAX_BYTES} bytes", "a manifest is a few hundred lines")
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not UTF-8 at byte {error.start}") from None
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}", "give the path of a manifest; `lprl init` writes one") from None


def _manifest(node: yaml.Node, file: str) -> Manifest | None:
    builder = _Builder(file)
    value = builder.value(node, "")
    if not isinstance(value, dict):
        raise UserError(f"{file}:{node.start_mark.line + 1}: a {type(value).__name__}, need a mapping")
    if value.get("kind") not in (None, names.KIND) and value.get("apiVersion") != names.API_VERSION:
        return None
    return Manifest(value, file, builder.lines)


class _Builder:
    """Plain values and their lines from YAML nodes."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._nodes = 0
        self._constructor: Any = _Loader("")
        self.lines: dict[str, int] = {"": 1}

    def value(self, node: yaml.Node, path: str) -> Any:
        """Return the value of a node, recording lines below `path`."""
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise UserError(f"{self._file}: more than {MAX_NODES} values once aliases are expanded")
        self.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(child, f"{path}[{i}]") for i, child in enumerate(node.value)]
        try:
            found = self._constructor.construct_object(node)
        except yaml.YAMLError as error:
            raise UserError(f"{self._file}:{node.start_mark.line + 1}: {error}") from None
        # Dates have no place in a manifest; people mean the text.
        return found if found is None or isinstance(found, bool | int | float | str) else str(node.value)

    def _mapping(self, node: yaml.MappingNode, path: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key_node, child in node.value:
            key = str(key_node.value)
            line = key_node.start_mark.line + 1
            if key in found:
                raise UserError(f"{self._file}:{line}: {key} is there twice", "remove one of them")
            below = f"{path}.{key}" if path else key
            self.lines[below] = line
            found[key] = self.value(child, below)
        return found
