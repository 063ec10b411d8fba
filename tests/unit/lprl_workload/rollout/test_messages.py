"""Prompts that are chat messages: the model sees every text of the row as it was written, or the row is refused."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lprl_api.errors import UserError
from lprl_api.spec.algorithm import Data
from lprl_fixtures.tokenizer import build_tokenizer
from lprl_workload.rollout.dataset import PromptDataset

PRINTS = "{% for m in messages %}[{{ m.role }}:{{ m.content }}]{% endfor %}{% if add_generation_prompt %}[assistant:{% endif %}"
ITERATES = (
    "{% for m in messages %}[{{ m.role }}:{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for p in m.content %}{% if p.type == 'text' %}{{ p.text }}{% endif %}{% endfor %}{% endif %}]{% endfor %}[assistant:"
)
PARTS_ONLY = (
    "{% for m in messages %}[{{ m.role }}:{% for p in m.content %}{% if p['type'] == 'text' %}{{ p['text'] }}"
    "{% endif %}{% endfor %}]{% endfor %}[assistant:"
)
USER_ONLY = "{% for m in messages %}{% if m.role == 'user' %}[user:{{ m.content }}]{% endif %}{% endfor %}[assistant:"
TRIMS = "{% for m in messages %}[{{ m.role }}:{{ (m.content or '') | trim | replace('/quick', '') }}]{% endfor %}[assistant:"


def text_of(prompt: Any, template: str = PRINTS, where: Path | None = None, **settings: Any) -> str:
    tokenizer = build_tokenizer()
    tokenizer.chat_template = template
    assert where is not None
    if where.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist([{"prompt": prompt, "label": "1", **settings.pop("row", {})}]), where)
    else:
        where.write_text(json.dumps({"prompt": prompt, "label": "1", **settings.pop("row", {})}) + "\n")
    data = Data.model_validate({"prompts": {"volume": "v", "path": "p"}, "reward": {"type": "exact"}, **settings})
    return PromptDataset(where, data, tokenizer, 0).all()[0].text


def user(content: Any, **more: Any) -> dict[str, Any]:
    return {"role": "user", "content": content, **more}


PARTS = [{"type": "text", "text": "what is "}, {"type": "text", "text": "7+1"}]


@pytest.mark.parametrize("template", [PRINTS, ITERATES, PARTS_ONLY], ids=["prints", "iterates", "parts-only"])
@pytest.mark.parametrize(
    "content",
    [
        pytest.param("what is 7+1", id="text"),
        pytest.param(PARTS, id="text-parts"),
        pytest.param([{"text": "what is "}, {"type": "input_text", "text": "7+1"}], id="other-names-of-text"),
        pytest.param(["what is ", "7+1"], id="bare-texts"),
        pytest.param({"type": "text", "text": "what is 7+1"}, id="one-part"),
    ],
)
def test_the_text_of_content_is_the_same_for_every_form_and_template(tmp_path: Path, template: str, content: Any) -> None:
    assert text_of([user(content)], template, tmp_path / "p.jsonl") == "[user:what is 7+1][assistant:"


def test_a_plain_prompt_reaches_a_template_that_takes_parts_only(tmp_path: Path) -> None:
    assert text_of("7+1", PARTS_ONLY, tmp_path / "p.jsonl", system_prompt="be") == "[system:be][user:7+1][assistant:"


def test_parts_of_parquet_have_nulls_for_the_fields_of_others(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "7+1", "image": None}]
    assert text_of([user(parts)], PRINTS, tmp_path / "p.parquet") == "[user:7+1][assistant:"


def test_messages_written_as_json_text_are_messages(tmp_path: Path) -> None:
    assert text_of(json.dumps([user("7+1")]), PRINTS, tmp_path / "p.parquet") == "[user:7+1][assistant:"
    assert text_of('[{"a": 1}] is json', PRINTS, tmp_path / "p.jsonl") == '[user:[{"a": 1}] is json][assistant:'


def test_a_call_of_a_tool_needs_no_content_and_keeps_its_arguments_without_nulls_of_parquet(tmp_path: Path) -> None:
    template = "{% for m in messages %}[{{ m.role }}:{{ 'call ' ~ m.tool_calls | tojson if m.tool_calls else m.content }}]{% endfor %}"
    calls = [{"name": "f", "arguments": {"x": 1, "y": None}}]
    messages = [
        user("a"),
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "content": "2", "tool_calls": None},
    ]
    for suffix, more in (("jsonl", ', "y": null'), ("parquet", "")):
        found = text_of(messages, template, tmp_path / f"p.{suffix}")
        assert found == f'[user:a][assistant:call [{{"name": "f", "arguments": {{"x": 1{more}}}}}]][tool:2]'


def test_the_system_prompt_stands_before_messages(tmp_path: Path) -> None:
    assert text_of([user("a")], PRINTS, tmp_path / "p.jsonl", system_prompt="be brief") == "[system:be brief][user:a][assistant:"


def test_a_template_may_trim_and_take_switches_out(tmp_path: Path) -> None:
    assert text_of([user("  a ")], TRIMS, tmp_path / "p.jsonl", system_prompt="be /quick") == "[system:be ][user:a][assistant:"


SYSTEM = {"role": "system", "content": "be"}


@pytest.mark.parametrize(
    ("prompt", "settings", "words"),
    [
        pytest.param(
            [user([{"type": "image", "image": "x.png"}])], {}, "message 0, part 0: type image with image, needs a text", id="image"
        ),
        pytest.param([user([*PARTS, {"type": "image_url", "image_url": {"url": "x"}}])], {}, "part 2: type image_url", id="image-url"),
        pytest.param([user([{"type": "input_audio", "input_audio": {}}])], {}, "part 0: type input_audio", id="audio"),
        pytest.param([user([{"type": "text", "text": None}])], {}, "part 0: type text with nothing", id="text-part-without-text"),
        pytest.param([user([7])], {}, "part 0: found an int", id="number-part"),
        pytest.param([user(7)], {}, "message 0: content is an int", id="number"),
        pytest.param([user({"a": 1})], {}, "part 0: type missing with a", id="mapping"),
        pytest.param([user(None)], {}, "message 0: a message of role user without content", id="null"),
        pytest.param([{"role": "assistant"}, user("a")], {}, "message 0: a message of role assistant without content", id="missing"),
        pytest.param([user("")], {}, "empty prompt", id="empty"),
        pytest.param("  \n", {}, "empty prompt", id="blank-text"),
        pytest.param([user([])], {}, "empty prompt", id="no-parts"),
        pytest.param([], {}, "an empty list", id="no-messages"),
        pytest.param(["a"], {}, "message 0: found text, needs a mapping", id="list-of-texts"),
        pytest.param([{"from": "human", "value": "a"}], {}, "with from, value, needs a mapping with role and content", id="sharegpt"),
        pytest.param([{"role": "", "content": "a"}], {}, "needs a mapping with role", id="empty-role"),
        pytest.param({"role": "user", "content": "a"}, {}, "found a mapping, needs text or a list", id="one-message"),
        pytest.param([user("a"), {"role": "assistant", "content": "b"}], {}, "last message is the assistant's", id="answer-in-the-prompt"),
        pytest.param([SYSTEM, user("a")], {"system_prompt": "s"}, "message 0: a system message, and data.systemPrompt", id="two-systems"),
        pytest.param([user("a"), SYSTEM, user("b")], {"system_prompt": "s"}, "message 1: a system message", id="system-in-the-middle"),
        pytest.param(
            [{"role": "developer", "content": "d"}, user("a")], {"system_prompt": "s"}, "message 0: a developer message", id="developer"
        ),
        pytest.param(str([user("a")]), {}, "Python's repr of messages", id="repr"),
        pytest.param([user("a\ud800")], {}, r"row 0 key 'prompt', content: lone surrogate \\ud800 at character 1", id="surrogate"),
        pytest.param(json.dumps([user("a")]), {"apply_chat_template": False}, "JSON text of chat messages, needs text", id="no-template"),
    ],
)
def test_a_prompt_that_would_become_something_else_is_refused(tmp_path: Path, prompt: Any, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        text_of(prompt, PRINTS, tmp_path / "p.jsonl", **settings)
    assert f"{tmp_path / 'p.jsonl'} row 0 key 'prompt'" in caught.value.message


@pytest.mark.parametrize(
    ("prompt", "settings", "words"),
    [
        pytest.param("a", {"system_prompt": "be brief"}, "leaves out data.systemPrompt, 'be brief'", id="system-prompt"),
        pytest.param([{"role": "human", "content": "why"}, user("a")], {}, "leaves out message 0 .role human., 'why'", id="role"),
        pytest.param([user("a"), {"role": "tool", "content": "9"}], {}, "leaves out message 1 .role tool., '9'", id="tool"),
        pytest.param([{"role": "developer", "content": "d"}, user("a")], {}, "leaves out message 0 .role developer.", id="developer"),
    ],
)
def test_a_message_the_template_leaves_out_is_told(tmp_path: Path, prompt: Any, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        text_of(prompt, USER_ONLY, tmp_path / "p.jsonl", **settings)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        pytest.param({"apply_chat_template": False, "tools_key": "tools"}, "data.toolsKey: needs data.applyChatTemplate", id="tools"),
        pytest.param({"apply_chat_template": False, "chat_template_kwargs": {"a": 1}}, "data.chatTemplateKwargs: needs", id="arguments"),
        pytest.param({"chat_template_kwargs": {"tokenize": True}}, "chatTemplateKwargs.tokenize: set by lprl itself", id="ours"),
        pytest.param(
            {"chat_template_kwargs": {"thinkng": True}}, "chatTemplateKwargs.thinkng: the chat template has no such", id="misspelt"
        ),
        pytest.param({"system_prompt": "a\udc00"}, r"data.systemPrompt: lone surrogate \\udc00", id="surrogate"),
        pytest.param({"tools_key": "tools", "row": {"tools": ["f"]}}, "'tools': found text in the list, needs mappings", id="tool-names"),
        pytest.param({"tools_key": "tools", "row": {"tools": [{"name": "f"}]}}, "has tools .* the chat template has none", id="no-tools"),
        pytest.param({"row": {"metadata": "gsm8k"}}, "'metadata': found text, needs a mapping", id="metadata-of-another-kind"),
    ],
)
def test_a_setting_that_would_change_nothing_is_refused(tmp_path: Path, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        text_of("a", PRINTS, tmp_path / "p.jsonl", **settings)
