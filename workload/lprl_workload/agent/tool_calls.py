"""What a model drew -> the tool calls in it (pure). One style a model family; `style_of` finds a model's by asking its chat template.

A style reads text that the model wrote, so nothing about it is trusted: a call that cannot be read becomes `ToolCall.problem`, which
the model is told as the tool's answer, and never an exception. Sizes are bounded by the response's own length.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

PROBE_NAME, PROBE_ARGUMENTS = "lprl_probe", {"place": "x7", "count": 3}
"""A call no model makes: what `style_of` has a template write."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call as the model wrote it."""

    name: str
    arguments: Mapping[str, Any]
    problem: str = ""
    """Why it cannot be made: what the model wrote is no call. Empty for a good one."""
    id: str = ""
    """What the model called it by, where it writes such a thing and in the form its template wants back; else empty."""


@dataclass(frozen=True, slots=True)
class Style:
    """How a family of models writes calls."""

    name: str
    read: Callable[[str], Iterator[ToolCall]]


def _call(written: object, names: str = "arguments") -> ToolCall:
    """Return the call of a JSON value {"name": ..., NAMES: {...}}."""
    if not isinstance(written, dict) or not isinstance(written.get("name"), str):
        return ToolCall("", {}, 'a tool call is JSON with "name" and "arguments"')
    arguments = written.get(names, written.get("parameters", written.get("arguments", {})))
    return _named(written["name"], arguments)


def _named(name: str, arguments: object) -> ToolCall:
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments) if arguments.strip() else {}
        except (ValueError, RecursionError) as error:
            return ToolCall(name, {}, f"the arguments are no JSON ({error})")
    if not isinstance(arguments, dict):
        return ToolCall(name, {}, "the arguments are no JSON object")
    return ToolCall(name, arguments)


def _parsed(text: str) -> ToolCall:
    try:
        return _call(json.loads(text))
    except (ValueError, RecursionError) as error:
        return ToolCall("", {}, f"the tool call is no JSON ({error})")


def _between(text: str, start: str, end: str) -> Iterator[str]:
    """Yield what stands between each `start` and the next `end`; one without an end reaches to the end of the text."""
    for part in text.split(start)[1:]:
        yield part.partition(end)[0].strip()


def _hermes(text: str) -> Iterator[ToolCall]:
    yield from map(_parsed, _between(text, "<tool_call>", "</tool_call>"))


def _scalar(text: str) -> Any:
    """Return a value written without quotes as what it looks like: JSON where it is, else the text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


_FUNCTION = re.compile(r"<function=([^>\n]+)>(.*?)(?:</function>|\Z)", re.S)
_PARAMETER = re.compile(r"<parameter=([^>\n]+)>\n?(.*?)\n?</parameter>", re.S)


def _xml(text: str) -> Iterator[ToolCall]:
    for name, body in _FUNCTION.findall(text):
        yield ToolCall(name.strip(), {key.strip(): _scalar(value) for key, value in _PARAMETER.findall(body)})


_NINE = re.compile(r"[A-Za-z0-9]{9}")
"""Mistral's templates refuse every other id."""
_DOTTED = re.compile(r"[A-Za-z0-9_.:-]{1,100}")


def _id(written: object, form: re.Pattern[str]) -> str:
    """Return an id that the tool's answer can name; empty for one that a template would choke on."""
    return written if isinstance(written, str) and form.fullmatch(written) else ""


_PAIR = re.compile(r"<arg_key>(.*?)</arg_key>\s*<arg_value>(.*?)</arg_value>", re.S)


def _glm(text: str) -> Iterator[ToolCall]:
    for part in _between(text, "<tool_call>", "</tool_call>"):
        name = part.partition("<arg_key>")[0].strip()
        problem = "" if name and "{" not in name else "a tool call is NAME, then <arg_key> and <arg_value> pairs"
        yield ToolCall(name, {key.strip(): _scalar(value) for key, value in _PAIR.findall(part)}, problem)


def _mistral(text: str) -> Iterator[ToolCall]:
    for part in text.split("[TOOL_CALLS]")[1:]:
        written = part.strip()
        if not written.startswith("["):
            head, _, arguments = written.partition("[ARGS]") if "[ARGS]" in written else (*_split_at(written, "{"),)
            name, _, written_id = head.partition("[CALL_ID]")
            yield replace(_named(name.strip(), arguments.strip()), id=_id(written_id.strip(), _NINE))
            continue
        try:
            found, _ = json.JSONDecoder().raw_decode(written)
        except (ValueError, RecursionError) as error:
            yield ToolCall("", {}, f"the list of tool calls is no JSON ({error})")
            continue
        for one in found:
            yield replace(_call(one), id=_id(one.get("id") if isinstance(one, dict) else None, _NINE))


def _split_at(text: str, mark: str) -> tuple[str, str, str]:
    place = text.find(mark)
    return (text, "", "") if place < 0 else (text[:place], mark, text[place:])


def _llama(text: str) -> Iterator[ToolCall]:
    body = text.split("<|python_tag|>")[-1].strip()
    decoder = json.JSONDecoder()
    while body.startswith("{"):
        try:
            found, end = decoder.raw_decode(body)
        except (ValueError, RecursionError) as error:
            yield ToolCall("", {}, f"the tool call is no JSON ({error})")
            return
        yield _call(found, "parameters")
        body = body[end:].lstrip(" ;\n")


_DEEPSEEK = re.compile(
    r"<｜tool▁call▁begin｜>(?:function<｜tool▁sep｜>(?P<old>[^\n<]+)\n```json\n(?P<body>.*?)\n```|(?P<new>[^<]+)<｜tool▁sep｜>(?P<rest>.*?))"
    r"(?:<｜tool▁call▁end｜>|\Z)",
    re.S,
)


def _deepseek(text: str) -> Iterator[ToolCall]:
    for found in _DEEPSEEK.finditer(text):
        yield _named((found["old"] or found["new"]).strip(), (found["body"] if found["old"] else found["rest"]).strip())


_KIMI = re.compile(r"<\|tool_call_begin\|>(.*?)<\|tool_call_argument_begin\|>(.*?)(?:<\|tool_call_end\|>|\Z)", re.S)


def _kimi(text: str) -> Iterator[ToolCall]:
    for head, arguments in _KIMI.findall(text):
        name = head.strip().removeprefix("functions.").rpartition(":")[0] or head.strip()
        yield replace(_named(name, arguments.strip()), id=_id(head.strip(), _DOTTED))


def sayable(call: ToolCall) -> ToolCall:
    """Return the call, with a problem where its arguments hold what no JSON can say: numbers that are none, half of a character."""
    try:
        json.dumps(call.arguments, allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        return replace(call, arguments={}, problem=f"the arguments are no JSON ({error})")
    return call


STYLES: tuple[Style, ...] = (
    Style("deepseek", _deepseek),
    Style("kimi", _kimi),
    Style("mistral", _mistral),
    Style("xml", _xml),
    Style("glm", _glm),
    Style("hermes", _hermes),
    Style("llama", _llama),
)
"""By how much a style's marks say: the bare JSON of Llama last."""


def style_of(written: str) -> Style | None:
    """Return the style that reads the probe call out of `written`, what a template made of it; None where none does."""
    for style in STYLES:
        for call in style.read(written):
            if (call.name, dict(call.arguments), call.problem) == (PROBE_NAME, PROBE_ARGUMENTS, ""):
                return style
    return None
