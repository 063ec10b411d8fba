"""Prompts of a file, in an order that is a pure function of (seed, position)."""

import json
import logging
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lprl_api.algorithm import Data
from lprl_api.errors import UserError
from lprl_workload.data import Prompt
from lprl_workload.rollout.chat import check_template, render
from lprl_workload.rollout.rows import read_rows

log = logging.getLogger(__name__)
LABEL_REWARDS = frozenset({"exact", "math", "deepscaler", "dapo"})
"""Rewards that compare with a label, so that every row needs one."""
TOKENIZE_ROWS = 1024
"""Texts tokenised at a time when prompts are filtered by length."""


@dataclass(frozen=True, slots=True)
class _Row:
    index: int
    text: str
    label: str | None
    metadata: Mapping[str, Any]


class PromptDataset:
    """The prompts of a run, rendered; tokenised when taken.

    A position counts the prompts taken since the start of the run: position p is prompt p % len of epoch p // len. Every
    epoch is shuffled with seed + epoch, so a resumed run needs the position only.
    """

    def __init__(self, path: Path, data: Data, tokenizer: Any, seed: int) -> None:
        """Read and check every row.

        Args:
            path: the .jsonl or .parquet file.
            data: keys, template settings, filter, shuffling and the rows used (data.prompts.firstRow, lastRow). For held-out
                prompts pass a copy whose `prompts` are the evaluation's and whose `shuffle` is false.
            tokenizer: a transformers tokenizer.
            seed: seed of epoch 0's order.

        Raises:
            UserError: a row is wrong (file, row number and key are named), or no prompt is left.

        """
        check_template(data, tokenizer)
        self._path, self._data, self._tokenizer, self._seed = path, data, tokenizer, seed
        keys = (data.prompt_key, data.label_key, data.metadata_key, data.tools_key)
        columns = tuple(key for key in keys if key)
        self._rows = [self._row(n, row) for n, row in read_rows(path, columns, data.prompts.first_row, data.prompts.last_row)]
        total = len(self._rows)
        if data.max_prompt_tokens is not None:
            self._rows = self._short(data.max_prompt_tokens)
        self._dropped = total - len(self._rows)
        if self._dropped:
            log.info("dropped long prompts", extra={"file": str(path), "dropped": self._dropped, "of": total})
        if not self._rows:
            raise UserError(f"{path}: no prompt left of {total} rows", "check firstRow, lastRow and data.maxPromptTokens")
        self._order: tuple[int, list[int]] | None = None

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def dropped(self) -> int:
        """Rows dropped because their prompt is longer than data.maxPromptTokens."""
        return self._dropped

    def take(self, position: int, count: int) -> tuple[list[Prompt], int]:
        """Return the `count` prompts from `position` on and the position after them; pure, epochs run on seamlessly."""
        rows = [self._at(place) for place in range(position, position + count)]
        ids = self._tokenize([row.text for row in rows])
        prompts = [Prompt(row.index, row.text, tuple(i), row.label, row.metadata) for row, i in zip(rows, ids, strict=True)]
        return prompts, position + count

    def all(self) -> list[Prompt]:
        """Return every prompt once, in file order (for evaluation)."""
        ids = self._tokenize([row.text for row in self._rows])
        return [Prompt(row.index, row.text, tuple(i), row.label, row.metadata) for row, i in zip(self._rows, ids, strict=True)]

    def _at(self, position: int) -> _Row:
        epoch, place = divmod(position, len(self._rows))
        if not self._data.shuffle:
            return self._rows[place]
        if self._order is None or self._order[0] != epoch:
            order = list(range(len(self._rows)))
            random.Random(self._seed + epoch).shuffle(order)
            self._order = (epoch, order)
        return self._rows[self._order[1][place]]

    def _tokenize(self, texts: list[str]) -> list[list[int]]:
        # The template has placed every special token already.
        return self._tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []

    def _short(self, limit: int) -> list[_Row]:
        kept: list[_Row] = []
        for start in range(0, len(self._rows), TOKENIZE_ROWS):
            part = self._rows[start : start + TOKENIZE_ROWS]
            lengths = [len(ids) for ids in self._tokenize([row.text for row in part])]
            kept += [row for row, length in zip(part, lengths, strict=True) if length <= limit]
        return kept

    def _row(self, number: int, row: dict[str, Any]) -> _Row:
        data, where = self._data, f"{self._path} row {number}"
        if data.prompt_key not in row:
            have = ", ".join(sorted(map(str, row))[:20]) or "none"
            raise UserError(f"{where}: no key {data.prompt_key!r} (data.promptKey); keys found: {have}")
        tools = _json_value(row.get(data.tools_key), f"{where} key {data.tools_key!r}", list) if data.tools_key else None
        text = render(row[data.prompt_key], f"{where} key {data.prompt_key!r}", data, self._tokenizer, tools)
        if not text:
            raise UserError(f"{where} key {data.prompt_key!r}: empty prompt")
        metadata = _json_value(row.get(data.metadata_key), f"{where} key {data.metadata_key!r}", dict) if data.metadata_key else None
        return _Row(number, text, self._label(row, where), metadata or {})

    def _label(self, row: dict[str, Any], where: str) -> str | None:
        key = self._data.label_key
        value = row.get(key) if key else None
        if value is None:
            if self._data.reward.type in LABEL_REWARDS:
                found = f"no value under {key!r}" if key else "data.labelKey is null"
                raise UserError(f"{where}: {found}, needs the label that reward {self._data.reward.type!r} compares with")
            return None
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _json_value(value: object, where: str, kind: type) -> Any:
    """Return a list or mapping given as such or as JSON text (parquet files often hold text); None stays None."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise UserError(f"{where}: not JSON ({error})") from error
    if value is not None and not isinstance(value, kind):
        raise UserError(f"{where}: found a {type(value).__name__}, needs a {'mapping' if kind is dict else 'list'}")
    return value
