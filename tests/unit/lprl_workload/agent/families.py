"""Chat formats of model families: published templates (`templates/`), and short ones of our own that write the same for tool use.

Each of our own was compared with the published template on the conversation of `test_between.py`; what differs is the wording of the
system part. One real BPE tokenizer per family, trained on a little text, with the family's special tokens.
"""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

TEXT = (
    "The quick brown fox jumps over the lazy dog. What is 12 times 7? The answer is 84. "
    '{"name": "multiply", "arguments": {"a": 12, "b": 7}} {"result": 84} weather in Paris and in Rome\n' * 8
)
TOOLS = "{%- if tools %}{{ OPEN + (tools | tojson) + CLOSE }}{%- endif %}"

HERMES = """
{%- if tools %}{{ '<|im_start|>system\\nCall them as <tool_call>: ' + (tools | tojson) + '<|im_end|>\\n' }}{% endif %}
{%- for m in messages %}
  {%- if m.role == 'tool' %}
    {%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}{{ '<|im_start|>user' }}{% endif %}
    {{- '\\n<tool_response>\\n' + m.content + '\\n</tool_response>' }}
    {%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{ '<|im_end|>\\n' }}{% endif %}
  {%- else %}
    {{- '<|im_start|>' + m.role + '\\n' + (m.content or '') }}
    {%- for c in m.tool_calls or [] %}
      {%- if m.content or not loop.first %}{{ '\\n' }}{% endif %}
      {{- '<tool_call>\\n{"name": "' + c.function.name + '", "arguments": ' + (c.function.arguments | tojson) + '}\\n</tool_call>' }}
    {%- endfor %}
    {{- '<|im_end|>\\n' }}
  {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}
"""

LLAMA = """
{{- bos_token }}
{%- for m in messages %}
  {%- if m.role == 'tool' %}
    {{- '<|start_header_id|>ipython<|end_header_id|>\\n\\n' + (m.content | tojson) + '<|eot_id|>' }}
  {%- elif m.tool_calls %}
    {%- if m.tool_calls | length != 1 %}{{ raise_exception('one call a turn') }}{% endif %}
    {%- set f = m.tool_calls[0].function %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n{"name": "' + f.name + '", "parameters": ' }}
    {{- (f.arguments | tojson) + '}<|eot_id|>' }}
  {%- else %}
    {{- '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' + (m.content | trim) + '<|eot_id|>' }}
  {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}
"""

MISTRAL = """
{{- bos_token }}
{%- for m in messages %}
  {%- if m.role == 'user' %}
    {{- '[INST]' + m.content + '[/INST]' }}
  {%- elif m.role == 'tool' %}
    {%- if m.tool_call_id | length < 9 %}{{ raise_exception('ids have nine characters') }}{% endif %}
    {{- '[TOOL_RESULTS] {"content": ' + m.content | string + ', "call_id": "' + m.tool_call_id[-9:] + '"}[/TOOL_RESULTS]' }}
  {%- elif m.tool_calls %}
    {{- '[TOOL_CALLS] [' }}
    {%- for c in m.tool_calls %}
      {{- (c.function | tojson)[:-1] + ', "id": "' + c.id[-9:] + '"}' + (']' if loop.last else ', ') }}
    {%- endfor %}
    {{- eos_token }}
  {%- else %}
    {{- m.content + eos_token }}
  {%- endif %}
{%- endfor %}
"""

DEEPSEEK = """
{{- bos_token }}
{%- set ns = namespace(asked=false, told=false) %}
{%- for m in messages %}
  {%- if m.role == 'user' %}
    {%- set ns.asked = true %}{% set ns.told = false %}
    {{- '<｜User｜>' + m.content }}
  {%- elif m.role == 'tool' %}
    {%- set ns.told = true %}
    {{- '<｜tool▁output▁begin｜>' + m.content + '<｜tool▁output▁end｜>' }}
  {%- else %}
    {%- if ns.asked %}{{ '<｜Assistant｜></think>' }}{% endif %}
    {%- set ns.asked = false %}{% set ns.told = false %}
    {{- m.content or '' }}
    {%- if m.tool_calls %}
      {{- '<｜tool▁calls▁begin｜>' }}
      {%- for c in m.tool_calls %}
        {{- '<｜tool▁call▁begin｜>' + c.function.name + '<｜tool▁sep｜>' + c.function.arguments + '<｜tool▁call▁end｜>' }}
      {%- endfor %}
      {{- '<｜tool▁calls▁end｜>' }}
    {%- endif %}
    {{- '<｜end▁of▁sentence｜>' }}
  {%- endif %}
{%- endfor %}
{%- if add_generation_prompt and ns.asked and not ns.told %}{{ '<｜Assistant｜></think>' }}{% endif %}
"""

KIMI = """
{%- if tools %}{{ '<|im_system|>tool_declare<|im_middle|>' + (tools | tojson) + '<|im_end|>' }}{% endif %}
{%- for m in messages %}
  {%- if m.role == 'tool' %}
    {{- '<|im_system|>' + (m.name or 'tool') + '<|im_middle|>## Return of ' + m.tool_call_id + '\\n' + m.content + '<|im_end|>' }}
  {%- else %}
    {{- '<|im_' + m.role + '|>' + m.role + '<|im_middle|>' + (m.content or '') }}
    {%- if m.tool_calls %}
      {{- '<|tool_calls_section_begin|>' }}
      {%- for c in m.tool_calls %}
        {{- '<|tool_call_begin|>' + c.id + '<|tool_call_argument_begin|>' + (c.function.arguments | tojson) + '<|tool_call_end|>' }}
      {%- endfor %}
      {{- '<|tool_calls_section_end|>' }}
    {%- endif %}
    {{- '<|im_end|>' }}
  {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_assistant|>assistant<|im_middle|>' }}{% endif %}
"""

GLM = """
{{- '[gMASK]<sop>' }}
{%- for m in messages %}
  {%- if m.role == 'user' %}
    {{- '<|user|>\\n' + m.content }}
  {%- elif m.role == 'tool' %}
    {%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}{{ '<|observation|>' }}{% endif %}
    {{- '\\n<tool_response>\\n' + m.content + '\\n</tool_response>' }}
  {%- else %}
    {{- '<|assistant|>' + ('\\n' + m.content if m.content else '') }}
    {%- for c in m.tool_calls or [] %}
      {{- '\\n<tool_call>' + c.function.name + '\\n' }}
      {%- for key, value in c.function.arguments.items() %}
        {{- '<arg_key>' + key + '</arg_key>\\n<arg_value>' + (value if value is string else value | tojson) + '</arg_value>\\n' }}
      {%- endfor %}
      {{- '</tool_call>' }}
    {%- endfor %}
  {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}
"""

XML = HERMES.replace(
    """{{- '<tool_call>\\n{"name": "' + c.function.name + '", "arguments": ' + (c.function.arguments | tojson) + '}\\n</tool_call>' }}""",
    """{{- '<tool_call>\\n<function=' + c.function.name + '>\\n' }}
      {%- for key, value in c.function.arguments.items() %}
        {{- '<parameter=' + key + '>\\n' + (value if value is string else value | tojson) + '\\n</parameter>\\n' }}
      {%- endfor %}
      {{- '</function>\\n</tool_call>' }}""",
)


@dataclass(frozen=True)
class Family:
    """One chat format."""

    template: str
    ends: tuple[str, ...]
    """Tokens that end a turn."""
    style: str
    specials: tuple[str, ...]
    calls_a_turn: int = 2
    text_arguments: bool = False
    """The template wants a call's arguments as JSON text."""
    nine: bool = False
    """It wants ids of nine letters and digits."""


_SPECIAL = re.compile(r"<\|\w+\|>|<｜[^｜]+｜>|\[/?[A-Z_]+\]|<sop>|\[gMASK\]")


def published(file: str, ends: tuple[str, ...], style: str, nine: bool = False) -> Family:
    """Return the family of a published template, with the special tokens it names."""
    text = (Path(__file__).parent / "templates" / file).read_text()
    return Family(text, ends, style, tuple(sorted({*_SPECIAL.findall(text), *ends, "<s>"})), nine=nine)


FAMILIES = {
    "qwen": Family(HERMES, ("<|im_end|>",), "hermes", ("<|im_start|>", "<|im_end|>", "<|endoftext|>")),
    "qwen-coder": Family(XML, ("<|im_end|>",), "xml", ("<|im_start|>", "<|im_end|>", "<|endoftext|>")),
    "llama-3": Family(LLAMA, ("<|eot_id|>",), "llama", ("<s>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"), calls_a_turn=1),
    "mistral": Family(
        MISTRAL, ("</s>",), "mistral", ("<s>", "</s>", "[INST]", "[/INST]", "[TOOL_CALLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]")
    ),
    "deepseek": Family(
        DEEPSEEK,
        ("<｜end▁of▁sentence｜>",),
        "deepseek",
        (
            "<s>", "<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>", "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>",
            "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<｜tool▁sep｜>", "<｜tool▁output▁begin｜>", "<｜tool▁output▁end｜>",
        ),
        text_arguments=True,
    ),
    "kimi": Family(
        KIMI,
        ("<|im_end|>",),
        "kimi",
        (
            "<|im_system|>", "<|im_user|>", "<|im_assistant|>", "<|im_middle|>", "<|im_end|>", "<|tool_calls_section_begin|>",
            "<|tool_calls_section_end|>", "<|tool_call_begin|>", "<|tool_call_argument_begin|>", "<|tool_call_end|>",
        ),
    ),
    "glm": Family(GLM, ("<|observation|>", "<|user|>"), "glm", ("[gMASK]", "<sop>", "<|user|>", "<|assistant|>", "<|observation|>")),
    "Qwen3-0.6B": published("qwen3-0.6b.jinja", ("<|im_end|>",), "hermes"),
    "Qwen3-Coder": published("qwen3-coder.jinja", ("<|im_end|>",), "xml"),
    "Mistral-Nemo-Instruct-2407": published("mistral-nemo-2407.jinja", ("</s>",), "mistral", nine=True),
    "Mistral-Small-3.2": published("mistral-small-3.2.jinja", ("</s>",), "mistral", nine=True),
    "DeepSeek-V3.1": published("deepseek-v3.1.jinja", ("<｜end▁of▁sentence｜>",), "deepseek"),
    "Kimi-K2-Instruct": published("kimi-k2.jinja", ("<|im_end|>",), "kimi"),
    "GLM-4.6": published("glm-4.6.jinja", ("<|observation|>", "<|user|>"), "glm"),
}  # fmt: skip


@cache
def tokenizer(name: str) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer with a family's special tokens and template."""
    family = FAMILIES[name]
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator([TEXT], trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, special_tokens=list(family.specials)))
    made = PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token=family.ends[0],
        bos_token="<s>" if "<s>" in family.specials else None,
        additional_special_tokens=list(family.specials),
    )
    made.chat_template = family.template.strip()
    return made
