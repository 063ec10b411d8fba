"""The tokenizer of a model folder."""

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from lprl_api.errors import UserError
from lprl_api.text import one_line

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
