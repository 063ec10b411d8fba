"""Prompts of a file, in an order that is a pure function of (seed, position)."""

import json
import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lprl_api.errors import UserError
from lprl_api.spec.algorithm import Data
from lprl_workload.data import Prompt
from lprl_workload.episode import token_ids
from lprl_workload.rollout import rows_parquet
from lprl_workload.rollout.chat import Chat
from lprl_workload.rollout.keys import Missing, listed, lookup, named
from lprl_workload.rollout.labels import COMPARING, Label, label_of
from lprl_workload.rollout.messages import without_nulls
from lprl_workload.rollout.prompt_tokens import PromptTokens
from lprl_workload.rollout.rows import read_rows
from lprl_workload.rollout.texts import check_texts, jsonable, kind

log = logging.getLogger(__name__)
DEFAULTS = {"metadata_key": "metadata", "label_key": "label"}
"""Keys every job has, whether its rows do or not; a key named otherwise is one the user means."""


@dataclass(frozen=True, slots=True)
class _Row:
    index: int
    text: str
    label: Label
    metadata: Mapping[str, Any]


class PromptDataset:
    """The prompts of a run, rendered; tokenised when taken.

    A position counts the prompts taken since the start of the run: position p is prompt p % len of epoch p // len. Every
    epoch is shuffled with seed + epoch, so a resumed run needs the position only.
    """

    def __init__(
        self,
        path: Path,
        data: Data,
        tokenizer: Any,
        seed: int,
        *,
        context: int | None = None,
        response: int = 1,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Read and check every row.

        Args:
            path: the .jsonl or .parquet file.
            data: keys, template settings, filter, shuffling and the rows used (data.prompts.firstRow, lastRow). For held-out
                prompts pass a copy whose `prompts` are the evaluation's and whose `shuffle` is false.
            tokenizer: a transformers tokenizer.
            seed: seed of epoch 0's order.
            context: longest sequence the engines serve, tokens; None checks no length.
            response: tokens a response may have; fewer fit behind a long prompt, which is said.
            tools: schemas the chat template tells every prompt of (spec.episode.tools).

        Raises:
            UserError: a row is wrong (file, row number and key are named), or no prompt is left.

        """
        self._path, self._data, self._seed = path, data, seed
        self._tokens = PromptTokens(tokenizer, from_template=data.apply_chat_template)
        self._chat, self._told = Chat(data, tokenizer), [dict(tool) for tool in tools]
        self._structs = path.suffix.lower() == ".parquet"
        self._met: set[str] = set()
        keys = (data.prompt_key, data.label_key, data.metadata_key, data.tools_key)
        columns = tuple(key for key in keys if key)
        self._rows = [self._row(n, row) for n, row in read_rows(path, columns, data.prompts.first_row, data.prompts.last_row)]
        self._check_keys()
        self._dropped = self._drop_long()
        if context is not None:
            self._check_lengths(context, response)
        self._order: tuple[int, list[int]] | None = None

    def _drop_long(self) -> int:
        """Leave long prompts out and return how many; raises UserError when none is left."""
        path, limit, total = self._path, self._data.max_prompt_tokens, len(self._rows)
        if limit is not None:
            long = {place for place, _ in self._tokens.longer([row.text for row in self._rows], limit)}
            self._rows = [row for place, row in enumerate(self._rows) if place not in long]
        dropped = total - len(self._rows)
        if dropped:
            log.info("%s: dropped %d of %d prompts, longer than data.maxPromptTokens", path, dropped, total)
        if not self._rows:
            raise UserError(f"{path}: no prompt left of {total} rows", "check firstRow, lastRow and data.maxPromptTokens")
        return dropped

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def dropped(self) -> int:
        """Rows dropped because their prompt is longer than data.maxPromptTokens."""
        return self._dropped

    def take(self, position: int, count: int) -> tuple[list[Prompt], int]:
        """Return the `count` prompts from `position` on and the position after them; pure, epochs run on seamlessly."""
        return self._prompts([self._at(place) for place in range(position, position + count)]), position + count

    def all(self) -> list[Prompt]:
        """Return every prompt once, in file order (for evaluation)."""
        return self._prompts(self._rows)

    def _prompts(self, rows: list[_Row]) -> list[Prompt]:
        ids = self._tokens.ids([row.text for row in rows])
        return [
            Prompt(row.index, row.text, token_ids(i), row.label, row.metadata, f"{self._path} row {row.index}")
            for row, i in zip(rows, ids, strict=True)
        ]

    def _at(self, position: int) -> _Row:
        epoch, place = divmod(position, len(self._rows))
        if not self._data.shuffle:
            return self._rows[place]
        if self._order is None or self._order[0] != epoch:
            order = list(range(len(self._rows)))
            random.Random(self._seed + epoch).shuffle(order)
            self._order = (epoch, order)
        return self._rows[self._order[1][place]]

    def _check_lengths(self, context: int, response: int) -> None:
        """Refuse a prompt that leaves no room for a response; say how many leave less than a whole one."""
        texts, cut = [row.text for row in self._rows], 0
        for place, length in self._tokens.longer(texts, max(0, context - response)):
            cut += 1
            if length >= context:
                found = f"{self._path} row {self._rows[place].index} key {self._data.prompt_key!r}: a prompt of {length} tokens"
                fits = f"at most {context - response} with a whole response" if context > response else f"at most {context - 1}"
                raise UserError(
                    f"{found} leaves no room for a response in a context of {context}",
                    f"set data.maxPromptTokens ({fits}) to leave long prompts out",
                )
        if cut:
            log.warning(
                "%s: %d of %d prompts leave less than maxResponseTokens (%d) in a context of %d: their responses end early; "
                "data.maxPromptTokens: %d would leave them out", self._path, cut, len(texts), response, context, max(1, context - response)
            )  # fmt: skip

    def _row(self, number: int, row: dict[str, Any]) -> _Row:
        data, where = self._data, f"{self._path} row {number}"
        prompt = self._value(row, data.prompt_key)
        if isinstance(prompt, Missing):
            raise UserError(
                f"{where}: no key {data.prompt_key!r} (data.promptKey); keys found: {self._keys(row)}", "name one of them in data.promptKey"
            )
        if self._structs:
            prompt = without_nulls(prompt)
        tools = self._tools(row, where)
        text = self._chat.render(prompt, f"{where} key {data.prompt_key!r}", tools)
        return _Row(number, text, self._label(row, where), self._metadata(row, where))

    def _value(self, row: dict[str, Any], key: str) -> Any:
        found = lookup(row, key)
        if not isinstance(found, Missing):
            self._met.add(key)
        return found

    def _optional(self, row: dict[str, Any], key: str | None) -> Any:
        """Return the value under a key; None where there is no key or no value."""
        found = self._value(row, key) if key else None
        return None if isinstance(found, Missing) else found

    def _tools(self, row: dict[str, Any], where: str) -> list[Any] | None:
        if self._told:
            return self._told
        key = self._data.tools_key
        found = self._optional(row, key)
        tools: list[Any] | None = _json_value(without_nulls(found) if self._structs else found, f"{where} key {key!r}", list)
        wrong = next((tool for tool in tools or () if not isinstance(tool, Mapping)), None)
        if wrong is not None:
            raise UserError(f"{where} key {key!r}: found {kind(wrong)} in the list, needs mappings (tool schemas)")
        check_texts(tools, f"{where} key {key!r}")
        return tools

    def _metadata(self, row: dict[str, Any], where: str) -> Mapping[str, Any]:
        key = self._data.metadata_key
        where = f"{where} key {key!r}"
        found = self._optional(row, key)
        if isinstance(found, str) and found.strip()[:1] not in ("{", "n"):
            raise UserError(f"{where}: found text, needs a mapping", "name another column in data.metadataKey, or set it to null")
        metadata = _json_value(found, where, dict) or {}
        check_texts(metadata, where)
        if self._data.reward.type == "remote":
            jsonable(metadata, where)
        return metadata

    def _label(self, row: dict[str, Any], where: str) -> Label:
        key, reward = self._data.label_key, self._data.reward.type
        value = self._optional(row, key)
        if value is None and reward in COMPARING:
            keys = f"; keys found: {self._keys(row)}" if key and isinstance(lookup(row, key), Missing) else ""
            found = f"no value under {key!r} (data.labelKey)" if key else "data.labelKey is null"
            remedy = "name the key of the label in data.labelKey" if keys or not key else "leave the row out, or write its label"
            raise UserError(f"{where}: {found}, needs the label that reward {reward!r} compares with{keys}", remedy)
        return label_of(value, f"{where} key {key!r}", key or "", reward)

    def _keys(self, row: dict[str, Any]) -> str:
        return listed(rows_parquet.names(self._path) if self._structs else named(row))

    def _check_keys(self) -> None:
        """Refuse a key that was named and is in no row: what it was to bring would be left out without a word."""
        data = self._data
        for field, named_so in (("tools_key", "toolsKey"), ("metadata_key", "metadataKey"), ("label_key", "labelKey")):
            key = getattr(data, field)
            if key and key not in self._met and key != DEFAULTS.get(field) and self._rows and not self._is_anywhere(key):
                _, row = next(read_rows(self._path, (key,), data.prompts.first_row, None))
                raise UserError(
                    f"{self._path}: no row has the key {key!r} (data.{named_so}); keys found: {self._keys(row)}",
                    "name one of them, or null",
                )

    def _is_anywhere(self, key: str) -> bool:
        """Whether a row of the file has the key, also one that is not used: the rows used may be some of many."""
        rows = read_rows(self._path, (key,), 0, None) if self._data.prompts.last_row is not None or self._data.prompts.first_row else ()
        return any(not isinstance(lookup(row, key), Missing) for _, row in rows)


def _json_value(value: object, where: str, wanted: type) -> Any:
    """Return a list or mapping given as such or as JSON text (parquet files often hold text); None stays None."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where}: not JSON ({error})", "write a JSON value there, or the value itself") from error
    if value is not None and not isinstance(value, wanted):
        raise UserError(f"{where}: found {kind(value)}, needs a {'mapping' if wanted is dict else 'list'}")
    return value
