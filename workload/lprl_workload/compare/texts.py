"""A file of prompts -> token ids, and of each text the tokens whose prediction counts.

A row with an answer (the column that was named, or a last message of the assistant's) counts in its answer and the end token behind
it; a row without one counts in every token from the second on. Prompts go through the chat template as they do in a job; the lines of
a .txt file, and everything under `template=False`, are texts as they are.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lprl_api.errors import UserError
from lprl_api.spec.algorithm import Data
from lprl_api.spec.sources import DataFile
from lprl_workload.rollout import rows_parquet
from lprl_workload.rollout.chat import Chat
from lprl_workload.rollout.keys import Missing, listed, lookup, named
from lprl_workload.rollout.messages import without_nulls, written_messages
from lprl_workload.rollout.prompt_tokens import PromptTokens
from lprl_workload.rollout.rows import read_rows
from lprl_workload.rollout.texts import check_text, kind


@dataclass(frozen=True, slots=True)
class Text:
    """One text: its token ids, and the first token whose prediction counts (at least 1: nothing predicts the first)."""

    where: str
    ids: tuple[int, ...]
    first: int
    answered: bool = False
    """Whether what counts is the answer alone."""

    @property
    def counted(self) -> int:
        """Tokens whose prediction counts."""
        return len(self.ids) - self.first


@dataclass(frozen=True, slots=True)
class Reading:
    """How a file of prompts is read."""

    prompt_key: str = "prompt"
    response_key: str | None = None
    """Column with the answers; None where there is none, and then a last message of the assistant's is one."""
    template: bool = True
    rows: tuple[int, int | None] = (0, None)
    """Rows read: from the first of these to before the second; None reads to the end."""
    max_tokens: int | None = None
    """Longer texts are left out; None keeps all, and refuses one that is longer than the model's context."""


def read_texts(path: Path, reading: Reading, tokenizer: Any, context: int) -> tuple[list[Text], int]:
    """Return the texts of a .jsonl, .parquet or .txt file, and how many were left out as longer than `reading.max_tokens`.

    Args:
        path: the file.
        reading: keys, template, and which rows.
        tokenizer: a transformers tokenizer.
        context: most tokens the model has positions for.

    Raises:
        UserError: a row is wrong, longer than the context, or no text is left; names file, row and key.

    """
    plain = path.suffix.lower() == ".txt"
    template = reading.template and not plain
    if template and not tokenizer.chat_template:
        raise UserError(
            f"{path}: the tokenizer has no chat template to put prompts into", "take the prompts as they are with --no-chat-template"
        )
    data = Data(prompts=DataFile(volume="data", path="texts.jsonl"), prompt_key=reading.prompt_key, apply_chat_template=template)
    chat, tokens = Chat(data, tokenizer), PromptTokens(tokenizer, from_template=template)
    end = tokenizer.eos_token_id if template else None
    kept: list[Text] = []
    left_out = 0
    for where, prompt, answer in _lines(path, reading) if plain else _rows(path, reading):
        text = _tokenised(chat.render(prompt, where, None), answer, where, tokens, tokenizer, end)
        if reading.max_tokens is not None and len(text.ids) > reading.max_tokens:
            left_out += 1
            continue
        if len(text.ids) > context:
            what = f"{where}: {len(text.ids)} tokens, the model has positions for {context}"
            raise UserError(what, f"leave longer texts out with --max-tokens {context}, or shorten the row")
        if text.counted < 1:
            raise UserError(f"{where}: {len(text.ids)} token, nothing is predicted in it", "leave the row out")
        kept.append(text)
    if not kept:
        why = f"all {left_out} texts are longer than --max-tokens {reading.max_tokens}" if left_out else "no prompt in it"
        raise UserError(f"{path}: {why}", "name a file with one prompt a row (.jsonl, .parquet), or one text a line (.txt)")
    return kept, left_out


def _tokenised(prompt: str, answer: str | None, where: str, tokens: PromptTokens, tokenizer: Any, end: int | None) -> Text:
    before = tokens.ids([prompt])[0]
    if answer is None:
        return Text(where, tuple(before), 1)
    behind = list(tokenizer(check_text(answer, where), add_special_tokens=False)["input_ids"])
    return Text(where, (*before, *behind, *([] if end is None else [end])), max(1, len(before)), answered=True)


def _lines(path: Path, reading: Reading) -> Iterator[tuple[str, Any, None]]:
    if not path.is_file():
        raise UserError(f"{path}: {'a folder' if path.is_dir() else 'no such file'}", "name the file of prompts")
    try:
        lines = [(n, line) for n, line in enumerate(path.read_text(encoding="utf-8").splitlines()) if line.strip()]
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 (byte 0x{error.object[error.start]:02x} at {error.start})", "write it in UTF-8") from error
    yield from ((f"{path} line {n + 1}", line, None) for n, line in lines[slice(*reading.rows)])


def _rows(path: Path, reading: Reading) -> Iterator[tuple[str, Any, str | None]]:
    parquet = path.suffix.lower() == ".parquet"
    keys = tuple(key for key in (reading.prompt_key, reading.response_key) if key)
    for number, row in _file_rows(path, keys, reading.rows):
        where = f"{path} row {number}"

        def there(row: Mapping[str, Any] = row) -> list[str]:
            return rows_parquet.names(path) if parquet else named(row)

        prompt = _value(row, reading.prompt_key, "--prompt-key, promptKey of a job", where, there)
        prompt = without_nulls(prompt) if parquet else prompt
        if reading.response_key is not None:
            answer = _value(row, reading.response_key, "--response-key, responseKey of a job", where, there)
            if not isinstance(answer, str) or not answer:
                raise UserError(
                    f"{where} key {reading.response_key!r}: found {kind(answer)}, needs the answer as text",
                    "leave the row out, or write it",
                )
            yield f"{where} key {reading.prompt_key!r}", prompt, answer
        else:
            yield (f"{where} key {reading.prompt_key!r}", *_without_answer(prompt, where))


def _file_rows(path: Path, keys: tuple[str, ...], rows: tuple[int, int | None]) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        yield from read_rows(path, keys, *rows)
    except UserError as error:
        remedy = error.remedy if "data.prompts" not in error.remedy else "name the file of prompts: .jsonl, .parquet, or .txt"
        raise UserError(error.message, remedy) from error


def _value(row: Mapping[str, Any], key: str, option: str, where: str, there: Callable[[], list[str]]) -> Any:
    found = lookup(row, key)
    if isinstance(found, Missing):
        raise UserError(f"{where}: no key {key!r} ({option}); keys found: {listed(there())}", "name one of them there")
    return found


def _without_answer(prompt: Any, where: str) -> tuple[Any, str | None]:
    """Take a last message of the assistant's off a conversation: it is the answer."""
    if isinstance(prompt, str):
        prompt = written_messages(prompt, where) or prompt
    last = prompt[-1] if isinstance(prompt, list) and len(prompt) > 1 else None
    if isinstance(last, Mapping) and last.get("role") == "assistant" and isinstance(last.get("content"), str) and last["content"]:
        return prompt[:-1], last["content"]
    return prompt, None
