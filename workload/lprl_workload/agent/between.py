"""The tokens the world puts between two turns of the policy: what the model's chat template writes there, tokenised once.

Token in, token out: what the policy drew is never decoded and tokenised again. After a turn only the text that the template writes
*behind* an assistant's message is tokenised (its end of turn, the tools' messages, the opening of the next turn) and appended.
"""

import json
import threading
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lprl_api.errors import UserError
from lprl_workload.agent.tool_calls import PROBE_ARGUMENTS, PROBE_NAME, Style, style_of
from lprl_workload.rollout.texts import says

Message = dict[str, Any]
ASKED, ANSWERED, SAID = "lprlasked4", "lprlanswered6", "lprlsaid8x"
"""Stand-ins for what was said before: texts no template has of its own."""
CALL_IDS = (f"functions.{PROBE_NAME}:0", "lprl0call")
"""As Kimi's models write them (the name stands nowhere else), and of the nine characters that Mistral's templates want."""
REMEDY = "set chat_template.jinja right, or choose a rollout without tools"


class TurnTokens:
    """Tokenises what comes after a turn, for one tokenizer and its template."""

    def __init__(self, tokenizer: Any, ends: frozenset[int], variables: Mapping[str, Any]) -> None:
        """Args: tokenizer: a transformers tokenizer with a chat template. ends: ids that end a turn. variables: of the template."""
        self._tokenizer, self._ends, self._variables = tokenizer, ends, variables
        self._one = threading.RLock()  # tokenizers bear one thread at a time; an engine may draw several batches at once
        added = {str(token) for token in tokenizer.get_added_vocab()} | set(map(str, tokenizer.all_special_tokens))
        self._longest = max(map(len, tokenizer.get_vocab()), default=1)
        """Characters of the longest token."""
        self._checked: set[tuple[str, ...]] = set()
        self._specials = tuple(token for token in sorted(added, key=len, reverse=True) if len(token) > 1 and not token.isspace())

    def between(self, drawn: NDArray[np.int32], messages: Sequence[Message]) -> NDArray[np.int32]:
        """Return the ids [T] that go between the drawn turn [R] and the next one.

        Args:
            drawn: the policy's turn; an end token at its end is the template's own end of turn and not repeated.
            messages: what the world says: role tool (with name, tool_call_id and content) or user. No special token in a content
                survives: what the world says can open no turn and end none.

        Raises:
            UserError: the template refuses these messages, or leaves one out.

        """
        with self._one:
            text = self._after([{**message, "content": self.harmless(str(message["content"]))} for message in messages])
            ids = np.asarray(self._tokenizer(text, add_special_tokens=False)["input_ids"], dtype=np.int32)
        if drawn.size and int(drawn[-1]) in self._ends and ids.size and int(ids[0]) in self._ends:
            return ids[1:]
        return ids

    def cut(self, text: str, limit: int, mark: str) -> str:
        """Return `text`, or when it has more than `limit` tokens its beginning and `mark`. No special token of its own survives."""
        whole = self.harmless(text)
        if len(whole.encode()) <= limit:  # every token stands for at least one byte
            return whole
        text = whole[: (limit + 1) * self._longest]  # no tokenizer bears a text of any length
        with self._one:
            encoded = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        if len(encoded["input_ids"]) > limit:
            text = text[: encoded["offset_mapping"][limit - 1][1]]
        return text + mark if len(text) < len(whole) else whole

    def harmless(self, text: str) -> str:
        """Return `text` with special tokens broken up, as an answer of the world must not open a turn or end one, and without halves
        of characters, which no tokenizer takes.
        """
        text = text.encode("utf-8", "replace").decode()
        for token in self._specials:
            text = text.replace(token, f"{token[0]} {token[1:]}")
        return text

    def check(self, messages: Sequence[Message]) -> None:
        """Raise UserError when the template refuses or leaves out messages of these roles; once for each row of roles.

        Told by a plain content: templates may well write a content another way, as JSON text for example.
        """
        roles = tuple(str(message["role"]) for message in messages)
        if roles in self._checked:
            return
        plain = [{**message, "content": f"{SAID}{place}"} for place, message in enumerate(messages)]
        behind = self._behind(plain)
        for message in plain:
            if not says(behind, message["content"]):
                raise UserError(f"chat_template.jinja: leaves out a message of role {message['role']}", REMEDY)
        self._checked.add(roles)

    def _after(self, messages: Sequence[Message]) -> str:
        self.check(messages)
        return self._behind(messages)

    def _behind(self, messages: Sequence[Message]) -> str:
        before = [{"role": "user", "content": ASKED}, {"role": "assistant", "content": ANSWERED}]
        text = self._rendered([*before, *messages], f"messages of role {', '.join(sorted({m['role'] for m in messages}))}")
        if text.count(ANSWERED) != 1:
            raise UserError("chat_template.jinja: does not write an assistant's message once, as it is", REMEDY)
        return text[text.index(ANSWERED) + len(ANSWERED) :]

    def _rendered(self, messages: Sequence[Message], what: str) -> str:
        try:
            found = self._tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True, **self._variables)
        except Exception as error:  # a template may raise anything
            raise UserError(f"chat_template.jinja: refused {what} ({type(error).__name__}: {error})", REMEDY) from error
        return str(found)


def style_of_template(tokenizer: Any, variables: Mapping[str, Any]) -> Style | None:
    """Return how the model writes tool calls: the style that reads what its template makes of one; None when it writes none.

    Templates want a call's arguments as a mapping (most) or as JSON text (DeepSeek's), and differ in ids: all are tried.
    """
    asked: Message = {"role": "user", "content": ASKED}
    for arguments in (dict(PROBE_ARGUMENTS), json.dumps(PROBE_ARGUMENTS)):
        for content, call_id in product(("", None), CALL_IDS):
            call = {"id": call_id, "type": "function", "function": {"name": PROBE_NAME, "arguments": arguments}}
            messages = [asked, {"role": "assistant", "content": content, "tool_calls": [call]}]
            try:
                opened = str(tokenizer.apply_chat_template([asked], tokenize=False, add_generation_prompt=True, **variables))
                text = str(tokenizer.apply_chat_template(messages, tokenize=False, **variables))
            except Exception:
                continue
            drawn = text[len(opened) :] if text.startswith(opened) else text[text.rfind(ASKED) + len(ASKED) :]
            found = style_of(_without_ends(drawn, tokenizer))
            if found:
                return found
    return None


def _without_ends(text: str, tokenizer: Any) -> str:
    """Cut a template's end of turn off, which a style that reads bare JSON would trip over."""
    for token in sorted(map(str, tokenizer.all_special_tokens), key=len, reverse=True):
        text = text.strip().removesuffix(token)
    return text
