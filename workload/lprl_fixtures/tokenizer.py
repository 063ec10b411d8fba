"""Real `tokenizers` tokenizers: a token per character, the specials of a chat format, a chat template. One without tools, one with."""

import re
import string
from collections.abc import Callable, Sequence
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

PAD, END, UNKNOWN = "<|endoftext|>", "<|end|>", "<|unknown|>"
SYSTEM, USER, ASSISTANT = "<|system|>", "<|user|>", "<|assistant|>"
SPECIALS = (PAD, END, UNKNOWN, SYSTEM, USER, ASSISTANT)
CHARACTERS = "0123456789abcdefghijklmnopqrstuvwxyz +=?.\n"

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|' + message['role'] + '|>' + message['content'] -}}"
    "{%- if not loop.last or message['role'] == 'assistant' -%}{{- '<|end|>' -}}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)

TOOL = "<|tool|>"
WORDS = ("<tool_call>", "</tool_call>", '{"name": "', '", "arguments": {"', '": "', '"}}')
"""What calls are written with, a token each, so that a call is a dozen tokens."""
TOOL_TEMPLATE = (
    "{%- if tools -%}{{- '<|system|>' + (tools | map(attribute='function.name') | join(' ')) + '<|end|>' -}}{%- endif -%}"
    "{%- for message in messages -%}"
    "{{- '<|' + message['role'] + '|>' + (message['content'] or '') -}}"
    "{%- for call in message['tool_calls'] or [] -%}"
    '{{- \'<tool_call>{"name": "\' + call.function.name + \'", "arguments": \' -}}'
    "{{- (call.function.arguments | tojson) + '}</tool_call>' -}}"
    "{%- endfor -%}"
    "{{- '<|end|>' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)
"""Hermes-style calls; of the tools it names only the names."""


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Return the tokenizer: pad `<|endoftext|>`, end of a turn `<|end|>`, no token added around a text."""
    return _built((*SPECIALS, *CHARACTERS), r"[\s\S]", [SYSTEM, USER, ASSISTANT], CHAT_TEMPLATE)


def build_tool_tokenizer() -> PreTrainedTokenizerFast:
    """Return the same for a model that calls tools: every printable ASCII character, and a template that writes calls and answers."""
    pieces = "|".join((*map(re.escape, WORDS), r"[\s\S]"))
    tokens = (*SPECIALS, TOOL, *WORDS, *string.printable[:95], "\n")
    return _built(tokens, pieces, [SYSTEM, USER, ASSISTANT, TOOL], TOOL_TEMPLATE)


def _built(tokens: Sequence[str], pieces: str, roles: list[str], template: str) -> PreTrainedTokenizerFast:
    core = Tokenizer(models.WordLevel({token: number for number, token in enumerate(tokens)}, unk_token=UNKNOWN))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(pieces), "isolated")
    core.decoder = decoders.Fuse()
    core.add_special_tokens([PAD, END, UNKNOWN, *roles])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        additional_special_tokens=roles,
        clean_up_tokenization_spaces=False,
        model_max_length=512,
    )
    tokenizer.chat_template = template
    return tokenizer


def write_tokenizer(folder: Path, build: Callable[[], PreTrainedTokenizerFast] = build_tokenizer) -> PreTrainedTokenizerFast:
    """Write tokenizer.json, tokenizer_config.json and the chat template into `folder`."""
    tokenizer = build()
    tokenizer.save_pretrained(str(folder))
    return tokenizer
