"""What models write as calls, well and badly: a call, or a problem the model is told; never an exception, never a wrong call."""

import json

import pytest

from lprl_workload.agent.tool_calls import STYLES, style_of

READ = {style.name: style.read for style in STYLES}
GOOD = [
    ("hermes", '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>', [("add", {"a": 1})]),
    ("hermes", 'I add.\n<tool_call>{"name":"add","arguments":{"a":1}}</tool_call> and <tool_call>{"name":"b","arguments":{}}</tool_call>',
     [("add", {"a": 1}), ("b", {})]),
    ("hermes", '<tool_call>{"name": "add", "arguments": "{\\"a\\": 1}"}</tool_call>', [("add", {"a": 1})]),
    ("hermes", '<tool_call>{"name": "add", "arguments": {"a": 1}}', [("add", {"a": 1})]),  # the end mark is the end token
    ("hermes", "no call at all", []),
    ("hermes", "1 < 2 and tool_call", []),
    ("xml", "<tool_call>\n<function=add>\n<parameter=a>\n1\n</parameter>\n<parameter=s>\ntwo\nlines\n</parameter>\n</function>",
     [("add", {"a": 1, "s": "two\nlines"})]),
    ("xml", "<function=now>\n</function>", [("now", {})]),
    ("glm", "<tool_call>add\n<arg_key>a</arg_key>\n<arg_value>1</arg_value>\n<arg_key>s</arg_key><arg_value>x y</arg_value>\n</tool_call>",
     [("add", {"a": 1, "s": "x y"})]),
    ("mistral", '[TOOL_CALLS] [{"name": "add", "arguments": {"a": 1}, "id": "abc123def"}]', [("add", {"a": 1})]),
    ("mistral", '[TOOL_CALLS]add[ARGS]{"a": 1}[TOOL_CALLS]b[ARGS]{}', [("add", {"a": 1}), ("b", {})]),
    ("mistral", '[TOOL_CALLS]add[CALL_ID]abc123def[ARGS]{"a": 1}', [("add", {"a": 1})]),
    ("mistral", '[TOOL_CALLS]add{"a": 1}', [("add", {"a": 1})]),
    ("llama", '{"name": "add", "parameters": {"a": 1}}', [("add", {"a": 1})]),
    ("llama", '<|python_tag|>{"name": "add", "parameters": {"a": 1}}; {"name": "b", "parameters": {}}', [("add", {"a": 1}), ("b", {})]),
    ("llama", 'The answer is {"a": 1}.', []),
    ("deepseek", "<｜tool▁call▁begin｜>function<｜tool▁sep｜>add\n```json\n{\"a\": 1}\n```<｜tool▁call▁end｜>",
     [("add", {"a": 1})]),
    ("deepseek", '<｜tool▁call▁begin｜>add<｜tool▁sep｜>{"a": 1}<｜tool▁call▁end｜>', [("add", {"a": 1})]),
    ("kimi", '<|tool_calls_section_begin|><|tool_call_begin|>functions.add:0<|tool_call_argument_begin|>{"a": 1}<|tool_call_end|>',
     [("add", {"a": 1})]),
]  # fmt: skip
BAD = [
    ("hermes", "<tool_call>add(1)</tool_call>", "no JSON"),
    ("hermes", '<tool_call>{"name": "add", "arguments": {"a": 1}</tool_call>', "no JSON"),
    ("hermes", '<tool_call>["add"]</tool_call>', '"name" and "arguments"'),
    ("hermes", '<tool_call>{"arguments": {}}</tool_call>', '"name" and "arguments"'),
    ("hermes", '<tool_call>{"name": 3, "arguments": {}}</tool_call>', '"name" and "arguments"'),
    ("hermes", '<tool_call>{"name": "add", "arguments": [1]}</tool_call>', "no JSON object"),
    ("hermes", '<tool_call>{"name": "add", "arguments": "a=1"}</tool_call>', "no JSON"),
    ("hermes", "<tool_call>" + "[" * 50_000, "no JSON"),
    ("glm", '<tool_call>{"name": "add"}</tool_call>', "<arg_key>"),
    ("mistral", "[TOOL_CALLS] [{]", "no JSON"),
    ("mistral", "[TOOL_CALLS] [7]", '"name" and "arguments"'),
    ("llama", '{"name": "add", "parameters": }', "no JSON"),
    ("kimi", "<|tool_call_begin|>functions.add:0<|tool_call_argument_begin|>{a}<|tool_call_end|>", "no JSON"),
]


@pytest.mark.parametrize(("style", "text", "calls"), GOOD)
def test_calls_are_read(style: str, text: str, calls: list[tuple[str, dict[str, object]]]) -> None:
    assert [(c.name, dict(c.arguments), c.problem) for c in READ[style](text)] == [(n, a, "") for n, a in calls]


@pytest.mark.parametrize(("style", "text", "problem"), BAD)
def test_what_is_no_call_is_told_as_one_problem(style: str, text: str, problem: str) -> None:
    (call,) = READ[style](text)
    assert problem in call.problem


@pytest.mark.parametrize("style", READ)
@pytest.mark.parametrize("text", ["", "\n", "{", "[", "<", "<tool_call>", "[TOOL_CALLS]", "<|python_tag|>", "\ud800", json.dumps({"a": 1})])
def test_no_text_raises(style: str, text: str) -> None:
    list(READ[style](text))


def test_a_text_without_the_probe_has_no_style() -> None:
    assert style_of("nothing") is None
    assert style_of('<tool_call>{"name": "other", "arguments": {}}</tool_call>') is None
