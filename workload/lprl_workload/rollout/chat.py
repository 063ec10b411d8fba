"""A prompt as the user wrote it -> the text the model sees."""

from collections.abc import Mapping, Sequence
from typing import Any

from lprl_api.algorithm import Data
from lprl_api.errors import UserError


def _messages(value: object, where: str, system_prompt: str | None) -> list[dict[str, Any]]:
    """Return chat messages; a text becomes a user message, after the system prompt when there is one."""
    if isinstance(value, str):
        system = [{"role": "system", "content": system_prompt}] if system_prompt else []
        return [*system, {"role": "user", "content": value}]
    if not isinstance(value, Sequence) or not value:
        raise UserError(f"{where}: found {_kind(value)}, needs text or a list of chat messages")
    messages: list[dict[str, Any]] = []
    for place, message in enumerate(value):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise UserError(f"{where}, message {place}: found {_kind(message)}, needs a mapping with role and content")
        # Parquet gives every struct all fields of the column, absent ones as null; templates test for presence.
        messages.append({key: part for key, part in message.items() if part is not None})
    return messages


def _kind(value: object) -> str:
    return "nothing" if value is None else "an empty list" if value == [] else f"a {type(value).__name__}"


def render(value: object, where: str, data: Data, tokenizer: Any, tools: list[Any] | None) -> str:
    """Return the prompt's text: the chat template applied, or the text itself.

    Args:
        value: text, or a list of messages with role and content.
        where: file, row and key, for errors.
        data: applyChatTemplate, chatTemplateKwargs and systemPrompt.
        tokenizer: a transformers tokenizer.
        tools: tool schemas for the template.

    Raises:
        UserError: the value is neither, or the template refuses it.

    """
    if not data.apply_chat_template:
        if not isinstance(value, str):
            raise UserError(f"{where}: found {_kind(value)}, needs text while data.applyChatTemplate is false")
        return value
    messages = _messages(value, where, data.system_prompt)
    # The template is the model folder's; transformers renders it in jinja2's immutable sandbox.
    try:
        text = tokenizer.apply_chat_template(messages, tools=tools, tokenize=False, add_generation_prompt=True, **data.chat_template_kwargs)
    except Exception as error:  # a template may raise anything
        raise UserError(f"{where}: the chat template refused it ({type(error).__name__}: {error})") from error
    return str(text)


def check_template(data: Data, tokenizer: Any) -> None:
    """Raise UserError when the data settings and the tokenizer cannot work together."""
    if data.apply_chat_template and not tokenizer.chat_template:
        raise UserError("data.applyChatTemplate: the model's tokenizer has no chat template", "set it to false, or add chat_template.jinja")
    if not data.apply_chat_template and data.system_prompt:
        raise UserError("data.systemPrompt: needs data.applyChatTemplate", "put the text into the prompts instead")
