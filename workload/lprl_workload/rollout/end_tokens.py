"""The ids that end a response. The tokenizer is given, not loaded."""

from pathlib import Path
from typing import Any

from lprl_api.errors import UserError
from lprl_workload.folder.header import read_json


def _ids(path: Path) -> set[int]:
    if not path.is_file():
        return set()
    value = read_json(path).get("eos_token_id")
    values = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(item, int) for item in values):
        raise UserError(f"{path}: eos_token_id is {value!r}, needs a token id or a list of them")
    return set(values)


def end_token_ids(folder: Path, tokenizer: Any) -> frozenset[int]:
    """Return every id that ends a response: generation_config.json's (else config.json's) and the tokenizer's own.

    Raises:
        UserError: none of them names one, so that no response could ever end by itself.

    """
    found = _ids(folder / "generation_config.json") or _ids(folder / "config.json")
    if tokenizer.eos_token_id is not None:
        found.add(int(tokenizer.eos_token_id))
    if not found:
        raise UserError(f"{folder}: no end token", "set eos_token_id in generation_config.json")
    return frozenset(found)
