"""JSON of a model's folder that is nested deeper than what reads it can follow is refused where it is read."""

import json
from pathlib import Path
from typing import Any

import pytest

from lprl_api.errors import UserError
from lprl_workload.folder.header import MAX_JSON_DEPTH, read_json


def nested(depth: int, kind: type) -> dict[str, Any]:
    """A document whose deepest object or list lies `depth` deep."""
    found: Any = kind()
    for _ in range(depth - 2):
        found = {"a": found} if kind is dict else [found]
    return {"a": found}


@pytest.mark.parametrize("kind", [dict, list])
@pytest.mark.parametrize("depth", [2, MAX_JSON_DEPTH, MAX_JSON_DEPTH + 1, 900])
def test_how_deep_a_document_may_be(depth: int, kind: type, tmp_path: Path) -> None:
    path, document = tmp_path / "config.json", nested(depth, kind)
    path.write_text(json.dumps(document))
    if depth <= MAX_JSON_DEPTH:
        assert read_json(path) == document
        return
    with pytest.raises(UserError, match=rf"config\.json: objects and lists nested more than {MAX_JSON_DEPTH} deep"):
        read_json(path)
