"""What spec.episode names, loaded and checked: tools, the user's function, how the model writes calls."""

import inspect
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from lprl_api.errors import UserError
from lprl_api.names import tool_authorization
from lprl_api.spec.algorithm import Data
from lprl_api.spec.episode import Episode
from lprl_workload.agent.between import TurnTokens, style_of_template
from lprl_workload.agent.tool import Tool
from lprl_workload.agent.tool_calls import STYLES, Style
from lprl_workload.agent.tool_http import HttpTool
from lprl_workload.agent.tool_python import PythonTool
from lprl_workload.agent.tool_sandbox import SandboxTool
from lprl_workload.rollout.chat import takes_tools
from lprl_workload.rollout.imported import imported

CALL = "async f(prompt, policy, tools) -> None"
Function = Callable[[Any, Any, Any], Awaitable[object]]


def load_tools(episode: Episode, environment: Mapping[str, str] = os.environ) -> dict[str, Tool]:
    """Return the tools by name. Raises UserError naming the field of one that cannot be one."""
    found: dict[str, Tool] = {}
    for place, tool in enumerate(episode.tools):
        where = f"episode.tools[{place}]"
        if tool.function is not None:
            found[tool.name] = PythonTool(tool, where)
        elif tool.sandbox is not None:
            found[tool.name] = SandboxTool(tool, place)
        else:
            found[tool.name] = HttpTool(tool, where, (environment.get(tool_authorization(place)) or "").strip() or None)
    return found


def schemas_of(episode: Episode) -> list[dict[str, Any]]:
    """Return what the model is told of the tools. Imports functions, asks no address and needs no secret; raises UserError."""
    bare = [tool.model_copy(update={"headers_secret": None}) for tool in episode.tools]
    return [dict(tool.schema) for tool in load_tools(episode.model_copy(update={"tools": tuple(bare)})).values()]


def load_function(path: str) -> Function:
    """Return the rollout function at `package.module:function`; raises UserError with file and reason when it cannot be one."""
    where = f"episode.function: {path}"
    module, _, name = path.partition(":")
    function = imported(where, module, name)
    what = "a class" if isinstance(function, type) else f"a {type(function).__name__}"
    if isinstance(function, type) or not callable(function):
        raise UserError(f"{where} is {what}, needs an async function{_at(function)}", f"it is called as {CALL}")
    if not (inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))):  # noqa: B004
        raise UserError(f"{where} is no async function{_at(function)}", f"write it as {CALL}: others wait while it waits")
    try:
        inspect.signature(function).bind(None, None, None)
    except TypeError as error:
        raise UserError(
            f"{where} takes {inspect.signature(function)}, is called as {CALL}: {error}{_at(function)}", "give it these three parameters"
        ) from error
    found: Function = function
    return found


def style_for(episode: Episode, tokenizer: Any, variables: Mapping[str, Any]) -> Style | None:
    """Return how the model writes calls: as `callFormat` says, else what its chat template makes of one; None where it makes none."""
    if episode.call_format != "auto":
        return next(style for style in STYLES if style.name == episode.call_format)
    return style_of_template(tokenizer, variables) if tokenizer.chat_template else None


def check_episode(episode: Episode, data: Data, tokenizer: Any) -> list[dict[str, Any]]:
    """Check everything an episode needs of image and model; returns the schemas that prompts tell the model.

    Raises:
        UserError: a function that cannot be imported or called, an address that is none, a template without words for tools.

    """
    if episode.function is not None:
        load_function(episode.function)
    schemas = schemas_of(episode)
    if not schemas:
        return []
    told = takes_tools(tokenizer.chat_template)
    if episode.type == "python":
        return schemas if told else []
    if not told:
        raise UserError(
            "episode.tools: the chat template has no word for tools, so the model would never hear of them",
            "set chat_template.jinja right, or tell of them in the prompts and use type python",
        )
    variables = data.chat_template_kwargs | {"tools": schemas}
    if style_for(episode, tokenizer, variables) is None:
        raise UserError("episode.callFormat: the chat template writes no tool calls that are known", "say how the model writes them")
    between = TurnTokens(tokenizer, frozenset(), variables)
    between.check([{"role": "tool", "name": schemas[0]["function"]["name"], "tool_call_id": "call00000", "content": ""}])
    return schemas


def _at(function: Any) -> str:
    """Return ` (FILE line N)` of where it is written, where that is known."""
    try:
        return f" ({inspect.getsourcefile(function)} line {inspect.getsourcelines(function)[1]})"
    except (TypeError, OSError):
        return ""
