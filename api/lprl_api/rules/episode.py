"""Rules on how an episode runs: what each type needs, what would be ignored, and what a tool must say of itself."""

from collections import Counter
from collections.abc import Iterator
from urllib.parse import urlsplit

from lprl_api.derived import effective
from lprl_api.field_error import FieldError, wrong
from lprl_api.rules.case import Case, Rule
from lprl_api.spec.episode import Episode, Tool

_DEFAULT = Episode()
_MANY_TURNS = ("max_turns", "max_episode_tokens", "timeout_seconds", "max_failed_fraction")
_TOOLS_ONLY = ("call_format", "max_tool_tokens")
LOOPBACK = ("localhost", "127.0.0.1", "::1")


def _named(field: str) -> str:
    return str(Episode.model_fields[field].alias)


def _type(case: Case) -> Iterator[FieldError]:
    episode = case.spec.episode
    if episode.type == "python" and episode.function is None:
        yield wrong("episode.function", None, "package.module:function for type python")
    if episode.type != "python" and episode.function is not None:
        yield wrong("episode.function", episode.function, f"nothing for type {episode.type}, or type python")
    if episode.type == "tools" and not episode.tools:
        yield wrong("episode.tools", None, "at least one tool for type tools, or type single-turn")
    if episode.type == "tools" and episode.max_turns < 2:
        yield wrong("episode.maxTurns", episode.max_turns, "at least 2 for type tools: what a tool answers is read in the next turn")


def _ignored(case: Case) -> Iterator[FieldError]:
    episode = case.spec.episode
    if episode.type == "single-turn":
        if episode.tools:
            yield wrong("episode.tools", f"{len(episode.tools)} tools", "nothing for type single-turn, or type tools")
        for field in (*_MANY_TURNS, *_TOOLS_ONLY):
            if getattr(episode, field) != getattr(_DEFAULT, field):
                yield wrong(f"episode.{_named(field)}", getattr(episode, field), "nothing for type single-turn, or type tools or python")
    elif not episode.tools:
        for field in _TOOLS_ONLY:
            if getattr(episode, field) != getattr(_DEFAULT, field):
                yield wrong(f"episode.{_named(field)}", getattr(episode, field), "nothing without episode.tools")


def _template(case: Case) -> Iterator[FieldError]:
    data, episode = case.spec.data, case.spec.episode
    if episode.type == "single-turn":
        return
    if not data.apply_chat_template and (episode.tools or episode.max_turns > 1):
        need = "true: turns are put together by the chat template; or episode.type single-turn, or python with maxTurns 1 and no tools"
        yield wrong("data.applyChatTemplate", False, need)
    if data.tools_key is not None and episode.tools:
        yield wrong("data.toolsKey", data.tools_key, "nothing with episode.tools: the model would be told of tools it cannot call")


def _tools(case: Case) -> Iterator[FieldError]:
    tools = case.spec.episode.tools
    for name, count in Counter(tool.name for tool in tools).items():
        if count > 1:
            yield wrong("episode.tools", f"{count} named {name}", "names that differ: the model calls a tool by its name")
    for place, tool in enumerate(tools):
        yield from _tool(f"episode.tools[{place}]", tool)


def _tool(where: str, tool: Tool) -> Iterator[FieldError]:
    given = [name for name in ("function", "url", "sandbox") if getattr(tool, name) is not None]
    if len(given) != 1:
        yield wrong(where, " and ".join(given) or "none of them", "exactly one of function, url and sandbox")
    elif tool.url is not None:
        yield from _address(where, tool, tool.url)
    elif tool.sandbox is not None:
        yield from _says_nothing(where, tool, "sandbox")
        if tool.headers_secret is not None:
            yield wrong(f"{where}.headersSecret", "a value", "nothing for a sandbox, which no secret is given to; or a url")
    else:
        if tool.headers_secret is not None:
            yield wrong(f"{where}.headersSecret", "a value", "nothing for a function, or a url")
        if tool.retries != Tool.model_fields["retries"].default:
            yield wrong(f"{where}.retries", tool.retries, "nothing for a function, whose calls are not tried again; or a url")


def _says_nothing(where: str, tool: Tool, kind: str) -> Iterator[FieldError]:
    for name, value in (("parameters", tool.parameters), ("description", tool.description)):
        if not value:
            yield wrong(f"{where}.{name}", None, f"what the model is told: a {kind} says nothing of itself")


def _address(where: str, tool: Tool, url: str) -> Iterator[FieldError]:
    yield from _says_nothing(where, tool, "url")
    try:
        parts = urlsplit(url)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number
        fits = False
    if not fits:
        yield wrong(f"{where}.url", url, "an address: http(s)://HOST[:PORT]/PATH")
    elif tool.headers_secret is not None and parts.scheme != "https" and parts.hostname not in LOOPBACK:
        yield wrong(f"{where}.url", url, "https, or no headersSecret: the secret would go over plain http")


def _patience(case: Case) -> Iterator[FieldError]:
    """An engine in which nothing moves for half of stallSeconds is replaced: what waits there must give up before."""
    episode, stall = case.spec.episode, case.spec.failure_policy.stall_seconds
    limits = [(f"episode.tools[{place}].timeoutSeconds", tool.timeout_seconds) for place, tool in enumerate(episode.tools)]
    for path, limit in [("episode.timeoutSeconds", episode.timeout_seconds), *limits] if episode.type != "single-turn" else ():
        if limit > stall / 2:
            need = f"at most {stall / 2:g}, half of failurePolicy.stallSeconds, after which an engine that waits is taken for hung"
            yield wrong(path, limit, need)


def _tokens(case: Case) -> Iterator[FieldError]:
    spec, tokens = case.spec, case.spec.episode.max_episode_tokens
    if tokens is None or spec.episode.type == "single-turn":
        return
    if tokens < spec.sampling.max_response_tokens:
        need = f"at least sampling.maxResponseTokens ({spec.sampling.max_response_tokens}), which is one turn's limit"
        yield wrong("episode.maxEpisodeTokens", tokens, need)
    length, source = effective.served_context(spec.topology.rollout, case.shape)
    prompt = spec.data.max_prompt_tokens or 1
    if length is not None and prompt + tokens > length > prompt:
        yield wrong("episode.maxEpisodeTokens", tokens, f"at most {length - prompt} ({source}, less prompt), or nothing for what fits")


RULES: tuple[Rule, ...] = (_type, _ignored, _template, _tools, _patience, _tokens)
