"""Response tokens -> the text that rewards judge."""

import re
from collections.abc import Callable, Sequence
from typing import Any

_CLOSING = re.compile(r"</[\w ]+>|\[/[\w ]+\]")
"""Marks such as </think>, </answer> and [/THINK]: part of what was said, also where a model has them as special tokens."""


def response_decoder(tokenizer: Any, end_ids: frozenset[int], stop_ids: Sequence[int] = ()) -> Callable[[Sequence[int]], str]:
    """Return the function ids -> text of a response as rewards see it.

    Everything the model wrote is there, special tokens such as `</think>` included, except what only begins, ends or fills up a
    sequence: the tokens that end a response, padding, BOS, and special tokens among `sampling.stopTokenIds` that are no closing mark.

    Args:
        tokenizer: a transformers tokenizer.
        end_ids: ids that end a response (end_tokens.py).
        stop_ids: sampling.stopTokenIds.

    """
    own = {tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id} - {None}
    special = set(tokenizer.all_special_ids) | {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    marks = {i for i in stop_ids if _CLOSING.fullmatch(str(tokenizer.convert_ids_to_tokens(i)))}
    silent = own | set(end_ids) | ((special & set(stop_ids)) - marks)

    def decode(ids: Sequence[int]) -> str:
        said = [i for i in ids if i not in silent]
        # As written: the clean-up joins `do n't` and ` .`, and some tokenizers put spaces around special tokens.
        return str(
            tokenizer.decode(said, skip_special_tokens=False, clean_up_tokenization_spaces=False, spaces_between_special_tokens=False)
        )

    return decode
