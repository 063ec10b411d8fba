"""Prompts -> token ids, and which prompts are too long."""

from collections.abc import Iterator, Sequence
from typing import Any

from lprl_api.wire.runconfig import RunConfig

TOKENIZE_ROWS = 1024
"""Texts tokenised at a time when lengths are counted."""
ADDED_TOKENS = 16
"""More tokens than any tokenizer puts around or before a text."""
_WORD = "a"


class PromptTokens:
    """Tokenises prompts of one run."""

    def __init__(self, tokenizer: Any, from_template: bool) -> None:
        """Args: tokenizer: a transformers tokenizer. from_template: a chat template has placed every special token already."""
        self._tokenizer = tokenizer
        self._before: list[int] = [] if from_template else _placed_before(tokenizer)

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of texts: as the template wrote them, else with what the tokenizer puts before a text (BOS), once."""
        if not texts:
            return []
        found = [list(ids) for ids in self._tokenizer(list(texts), add_special_tokens=False)["input_ids"]]
        before = self._before
        return [ids if ids[: len(before)] == before else [*before, *ids] for ids in found]

    def longer(self, texts: Sequence[str], limit: int) -> Iterator[tuple[int, int]]:
        """Yield (place, tokens) of every text of more than `limit` tokens; tokenises only those that can be so long."""
        # Every token stands for at least one byte.
        places = [place for place, text in enumerate(texts) if len(text) + ADDED_TOKENS > limit or _bytes(text) + ADDED_TOKENS > limit]
        for start in range(0, len(places), TOKENIZE_ROWS):
            part = places[start : start + TOKENIZE_ROWS]
            for place, ids in zip(part, self.ids([texts[place] for place in part]), strict=True):
                if len(ids) > limit:
                    yield place, len(ids)


def context_of(run: RunConfig) -> int:
    """Return the longest sequence the engines serve, prompt and response together, tokens."""
    return min(run.rollout.context_length or run.shape.max_positions, run.shape.max_positions)


def _bytes(text: str) -> int:
    return len(text.encode())


def _placed_before(tokenizer: Any) -> list[int]:
    """Return the special ids the tokenizer puts before a text. What it puts behind one (EOS) would end the prompt: left out."""
    bare, dressed = (list(tokenizer(_WORD, add_special_tokens=added)["input_ids"]) for added in (False, True))
    for place in range(len(dressed) - len(bare) + 1):
        if dressed[place : place + len(bare)] == bare:
            return dressed[:place]
    return []
