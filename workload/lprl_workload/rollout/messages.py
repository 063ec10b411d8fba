"""A prompt as the user wrote it -> chat messages whose content is text (pure)."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from lprl_api.errors import UserError
from lprl_workload.rollout.texts import check_texts, kind

TEXT_PARTS = frozenset({"text", "input_text", "output_text"})
"""Types of content parts that hold text."""
SYSTEM_ROLES = frozenset({"system", "developer"})
_JSON = re.compile(r'\s*\[\s*\{\s*"')
_REPR = re.compile(r"\s*\[\s*\{\s*'(role|content)'\s*:")
NEEDS = "a prompt is text, or a list of messages with role and content (text, or a list of text parts)"


def messages_of(value: object, where: str, system_prompt: str | None) -> list[dict[str, Any]]:
    """Return chat messages, the system prompt in front; a text becomes a user message.

    Content that is a list of parts becomes the joined text of them; content is None only where a message calls tools instead.

    Raises:
        UserError: the value is neither text nor messages, a part is no text, nothing is asked, there are two system messages, or the
            last message is the assistant's; starts with `where`.

    """
    if isinstance(value, str):
        value = written_messages(value, where) or [{"role": "user", "content": value}]
    if isinstance(value, Sequence) and not isinstance(value, bytes) and value:
        found = [_message(message, f"{where}, message {place}") for place, message in enumerate(value)]
    else:
        raise UserError(f"{where}: found {kind(value)}, needs text or a list of chat messages", NEEDS)
    check_texts(found, where)
    if not any((message["content"] or "").strip() for message in found):
        raise UserError(f"{where}: empty prompt", "leave the row out")
    if found[-1]["role"] == "assistant":
        raise UserError(
            f"{where}: the last message is the assistant's, and the response would be another turn",
            "leave an answer out of the prompt; to have a text continued, write it out and set data.applyChatTemplate: false",
        )
    return _with_system(found, where, system_prompt)


def written_messages(text: str, where: str) -> list[Any] | None:
    """Return the messages of a text that is JSON of a list of them, as parquet files often hold it; None for any other text.

    Raises:
        UserError: the text is Python's repr of messages, which some converters leave behind.

    """
    if _REPR.match(text):
        raise UserError(f"{where}: text that is Python's repr of messages", "write the messages as a list, or as JSON text")
    if not _JSON.match(text):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    plain = isinstance(found, list) and all(isinstance(part, dict) and isinstance(part.get("role"), str) for part in found)
    return found if plain else None


def _with_system(messages: list[dict[str, Any]], where: str, system_prompt: str | None) -> list[dict[str, Any]]:
    if not system_prompt:
        return messages
    place = next((n for n, message in enumerate(messages) if message["role"] in SYSTEM_ROLES), None)
    if place is not None:
        raise UserError(
            f"{where}, message {place}: a {messages[place]['role']} message, and data.systemPrompt is set too",
            "take one of them away: nothing says which is meant",
        )
    return [{"role": "system", "content": system_prompt}, *messages]


def _message(message: object, where: str) -> dict[str, Any]:
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str) or not message["role"]:
        keys = f" with {', '.join(map(str, message))}" if isinstance(message, Mapping) and message else ""
        raise UserError(f"{where}: found {kind(message)}{keys}, needs a mapping with role and content", NEEDS)
    # Parquet gives every struct all fields of the column, absent ones as null; templates test for presence.
    found = {key: part for key, part in message.items() if part is not None}
    if found.get("content") is None:
        if not found.get("tool_calls"):
            raise UserError(f"{where}: a message of role {message['role']} without content", NEEDS)
        return {**found, "content": None}
    return {**found, "content": _text(found["content"], where)}


def _text(content: object, where: str) -> str:
    """Return the content's text: parts are put together without anything between, as templates that take parts do it."""
    if isinstance(content, str):
        return content
    if isinstance(content, Mapping):
        content = [content]
    if not isinstance(content, list):
        raise UserError(f"{where}: content is {kind(content)}, needs text or a list of text parts", NEEDS)
    return "".join(_part(part, f"{where}, part {place}") for place, part in enumerate(content))


def _part(part: object, where: str) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, Mapping):
        raise UserError(f"{where}: found {kind(part)}, needs a text part", NEEDS)
    named, text = part.get("type"), part.get("text")
    if (named is None or named in TEXT_PARTS) and isinstance(text, str):
        return text
    held = ", ".join(str(key) for key, inner in part.items() if inner is not None and key != "type") or "nothing"
    raise UserError(
        f"{where}: type {named or 'missing'} with {held}, needs a text part",
        "prompts are text only: leave rows with images, audio or video out",
    )


def without_nulls(value: Any) -> Any:
    """Return a value of parquet without the nulls of mappings: a struct has all fields of its column, absent ones as null."""
    if isinstance(value, Mapping):
        return {key: without_nulls(part) for key, part in value.items() if part is not None}
    return [without_nulls(part) for part in value] if isinstance(value, list) else value
