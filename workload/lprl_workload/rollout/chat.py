"""Chat messages -> the text the model sees, by the tokenizer's template, with a look at whether the template says all of them."""

import re
from collections.abc import Mapping
from typing import Any

from lprl_api.errors import UserError
from lprl_api.spec.algorithm import Data
from lprl_workload.rollout.messages import messages_of, written_messages
from lprl_workload.rollout.texts import check_text, check_texts, kind, quoted, says

PROBE = "lprlprobe7"
"""A text no template has of its own."""
OURS = frozenset(
    {
        "conversation", "messages", "tools", "documents", "chat_template", "add_generation_prompt", "continue_final_message", "tokenize",
        "padding", "truncation", "max_length", "return_tensors", "return_dict", "return_assistant_tokens_mask", "tokenizer_kwargs",
    }
)  # fmt: skip
"""Arguments of apply_chat_template that are no variables of a template."""


class Chat:
    """Renders prompts as `data` says; made once a file."""

    def __init__(self, data: Data, tokenizer: Any) -> None:
        """Check the settings against the tokenizer; raises UserError naming the field."""
        self._data, self._tokenizer, self._takes_tools = data, tokenizer, False
        check_text(data.system_prompt or "", "data.systemPrompt")
        check_texts(data.chat_template_kwargs, "data.chatTemplateKwargs")
        if data.apply_chat_template:
            self._check_template()
        else:
            _check_without_template(data)
        self._as_parts = False
        self._as_parts = data.apply_chat_template and self._takes_parts_only()

    def render(self, value: object, where: str, tools: list[Any] | None) -> str:
        """Return the prompt's text: the chat template applied, or the text itself.

        Args:
            value: text, or a list of messages with role and content.
            where: file, row and key, for errors.
            tools: tool schemas for the template.

        Raises:
            UserError: the value is neither, or the template refuses it or leaves a message out.

        """
        if not self._data.apply_chat_template:
            if not isinstance(value, str):
                raise UserError(f"{where}: found {kind(value)}, needs text while data.applyChatTemplate is false")
            if not value.strip():
                raise UserError(f"{where}: empty prompt", "leave the row out")
            if written_messages(value, where) is not None:
                raise UserError(f"{where}: found JSON text of chat messages, needs text while data.applyChatTemplate is false")
            return check_text(value, where)
        if tools and not self._takes_tools:
            raise UserError(
                f"{where}: the row has tools (data.toolsKey) and the chat template has none, so they would be left out",
                "set data.toolsKey to null and write the tools into the prompts, or set chat_template.jinja right",
            )
        messages = messages_of(value, where, self._data.system_prompt)
        text = self._apply(messages, where, tools)
        for place, message in enumerate(messages):
            if message["role"] != "assistant" and message["content"] and not says(text, message["content"]):
                self._check_said(messages, place, text, where, tools)
        return text

    def _apply(self, messages: list[dict[str, Any]], where: str, tools: list[Any] | None) -> str:
        if self._as_parts:
            messages = [_in_parts(message) for message in messages]
        more = self._data.chat_template_kwargs
        # The template is the model folder's; transformers renders it in jinja2's immutable sandbox.
        try:
            text = self._tokenizer.apply_chat_template(messages, tools=tools, tokenize=False, add_generation_prompt=True, **more)
        except Exception as error:  # a template may raise anything
            raise UserError(
                f"{where}: the chat template refused it ({type(error).__name__}: {error})",
                "correct the row, data.chatTemplateKwargs or the model's chat template",
            ) from error
        return check_text(str(text), f"{where}, as the chat template renders it")

    def _check_said(self, messages: list[dict[str, Any]], place: int, text: str, where: str, tools: list[Any] | None) -> None:
        """Refuse a message that makes no difference. (A template may well change a text, or take a switch out of it.)"""
        message = messages[place]
        other = [*messages[:place], {**message, "content": f"{message['content']} {PROBE}"}, *messages[place + 1 :]]
        if self._apply(other, where, tools) != text:
            return
        added = self._data.system_prompt and place == 0
        what = "data.systemPrompt" if added else f"message {place - bool(self._data.system_prompt)} (role {message['role']})"
        raise UserError(
            f"{where}: the chat template leaves out {what}, {quoted(message['content'])}",
            "name a role the template knows, put the text into the user's message, or set chat_template.jinja right",
        )

    def _takes_parts_only(self) -> bool:
        """Whether the template says a content of parts, but not a plain text (those of some vision models)."""
        plain = {"role": "user", "content": PROBE}
        texts = []
        for message in (plain, _in_parts(plain)):
            try:
                texts.append(self._apply([message], "", None))
            except UserError:  # it may want more than one message: rows will show what it says of them
                return False
        return PROBE not in texts[0] and PROBE in texts[1] and "'text'" not in texts[1]

    def _check_template(self) -> None:
        template = self._tokenizer.chat_template
        if not template:
            raise UserError(
                "data.applyChatTemplate: the model's tokenizer has no chat template", "set it to false, or add chat_template.jinja"
            )
        source = source_of(template)
        self._takes_tools = takes_tools(template)
        for name in self._data.chat_template_kwargs:
            if name in OURS:
                raise UserError(f"data.chatTemplateKwargs.{name}: set by lprl itself", "leave it out: these are variables of the template")
            if not re.search(rf"\b{re.escape(name)}\b", source):
                raise UserError(
                    f"data.chatTemplateKwargs.{name}: the chat template has no such variable, so nothing would change",
                    "remove it, or name a variable the template has",
                )


def source_of(template: Any) -> str:
    """Return the text of a tokenizer's chat template, or of all it has."""
    return " ".join(map(str, template.values())) if isinstance(template, Mapping) else str(template or "")


def takes_tools(template: Any) -> bool:
    """Return whether a chat template has a word for tools."""
    return re.search(r"\btools\b", source_of(template)) is not None


def _check_without_template(data: Data) -> None:
    for field, value, remedy in (
        ("systemPrompt", data.system_prompt, "put the text into the prompts instead"),
        ("toolsKey", data.tools_key, "write the tools into the prompts instead"),
        ("chatTemplateKwargs", data.chat_template_kwargs, "leave them out"),
    ):
        if value:
            raise UserError(f"data.{field}: needs data.applyChatTemplate", remedy)


def _in_parts(message: dict[str, Any]) -> dict[str, Any]:
    content = message["content"]
    return {**message, "content": [{"type": "text", "text": content}]} if isinstance(content, str) else message
