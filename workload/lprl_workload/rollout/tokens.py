"""The tokenizer of a model folder and the ids that end a response."""

import json
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from lprl_api.errors import UserError
from lprl_api.text import one_line

MAX_JSON_BYTES = 16 * 1024 * 1024
MIN_TOKENS = 8
"""Smallest vocabulary that is one: fewer are the special tokens transformers adds by itself."""


def load_tokenizer(folder: Path) -> Any:
    """Return the tokenizer of a Hugging Face folder (a transformers PreTrainedTokenizer); no code of the folder runs.

    Raises:
        UserError: the folder has no tokenizer that transformers can read without remote code.

    """
    remedy = "the folder needs the tokenizer.json and tokenizer_config.json the model was published with"
    try:
        found = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # what the library raises for a broken file is of no kind, and none of it is chance
        raise UserError(f"{folder}: no readable tokenizer ({type(error).__name__}: {one_line(str(error))})", remedy) from error
    if len(found) < MIN_TOKENS:
        # Without its files transformers makes an empty one, to which every prompt is no token at all.
        raise UserError(f"{folder}: no readable tokenizer (its vocabulary has {len(found)} tokens)", remedy)
    return found


def _ids(path: Path) -> set[int]:
    if not path.is_file():
        return set()
    if path.stat().st_size > MAX_JSON_BYTES:
        raise UserError(f"{path}: {path.stat().st_size} bytes, at most {MAX_JSON_BYTES} fit")
    try:
        document = json.loads(path.read_bytes())
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error})", "copy or download the file again") from error
    value = document.get("eos_token_id") if isinstance(document, dict) else None
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
