"""Manifests from files, with the line of every field."""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lprl_api import names
from lprl_api.errors import UserError
from lprl_api.field_error import as_text

MAX_BYTES = 1024 * 1024
MAX_NODES = 50_000
"""Nodes after aliases are expanded: a small file must not grow into a large one."""
MAX_DEPTH = 64
_Base: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Base):  # type: ignore[misc]
    """Reads 1e-3 and 2.5e3 as numbers, as Kubernetes does; to YAML 1.1 they are text without a dot and a sign."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$"), list("-+.0123456789")
)


@dataclass(frozen=True)
class Manifest:
    """One document of a file."""

    document: dict[str, Any]
    file: str
    lines: Mapping[str, int]
    """Line by field path (`spec.topology.nodes`, `spec.volumes.models`, `a[0]`), counted from 1."""

    @property
    def name(self) -> str | None:
        """The job's name, None where the document has none."""
        metadata = self.document.get("metadata")
        name = metadata.get("name") if isinstance(metadata, dict) else None
        return None if name is None else str(name)

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
        raise UserError(f"{file}: no YAML: {error}", "correct the line named") from None
    except RecursionError:
        raise UserError(f"{file}: no YAML: nested too deep", "a manifest is a few levels deep") from None
    found = [_manifest(node, file) for node in nodes]
    jobs = [m for m in found if m is not None]
    if not jobs:
        raise UserError(f"{file}: no {names.KIND} in it", f"start it with apiVersion: {names.API_VERSION} and kind: {names.KIND}")
    return jobs


def load_one(file: str, name: str | None = None) -> Manifest:
    """Return the one job of a file, or the one named."""
    found = load(file)
    if name is not None:
        found = [m for m in found if m.name == name]
        if not found:
            raise UserError(f"{file}: no job named {name} in it", "give another --name")
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
        raise UserError(f"{file}: not UTF-8 at byte {error.start}", "save it as UTF-8") from None
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
        self._depth = 0
        self._constructor: Any = _Loader("")
        self.lines: dict[str, int] = {"": 1}

    def value(self, node: yaml.Node, path: str) -> Any:
        """Return the value of a node, recording lines below `path`."""
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise UserError(f"{self._file}: more than {MAX_NODES} values once aliases are expanded", "write out what is meant")
        if self._depth > MAX_DEPTH:
            where = f"{self._file}:{node.start_mark.line + 1}"
            raise UserError(f"{where}: more than {MAX_DEPTH} levels deep, or an alias inside itself", "write out what is meant")
        self.lines.setdefault(path, node.start_mark.line + 1)
        self._depth += 1
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, path)
            if isinstance(node, yaml.SequenceNode):
                return [self.value(child, f"{path}[{i}]") for i, child in enumerate(node.value)]
        finally:
            self._depth -= 1
        return self._scalar(node)

    def _scalar(self, node: yaml.Node) -> Any:
        try:
            found = self._constructor.construct_object(node)
        except (yaml.YAMLError, ValueError) as error:  # ValueError: a tag its text does not fit, or thousands of digits
            raise UserError(f"{self._file}:{node.start_mark.line + 1}: {as_text(str(error))}", "quote it if text is meant") from None
        if isinstance(found, int | float) and ":" in str(node.value):
            return str(node.value)  # 12:30 is a number of base 60 to YAML 1.1 only
        if isinstance(found, float) and found.is_integer() and abs(found) < 2**53:
            return int(found)  # as Kubernetes hands it on: 3.0 and 1e3 fit integer fields
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
