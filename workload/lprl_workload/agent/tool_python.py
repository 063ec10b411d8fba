"""A tool that is a Python function, named by its import path. Arguments are checked against its types before it is called."""

import asyncio
import inspect
import json
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import wraps
from typing import Any

from pydantic import PydanticUserError, TypeAdapter, ValidationError, validate_call

from lprl_api.errors import UserError
from lprl_api.spec import episode as spec
from lprl_api.text import shortened
from lprl_workload.agent.tool import LONGEST_ERROR, Answer, ToolError, schema_of
from lprl_workload.agent.waiting import cancelling
from lprl_workload.rollout.imported import imported, said


class InvalidInsideError(Exception):
    """The tool itself raised pydantic's ValidationError, its cause here: that the model's arguments do not fit would be the same class."""


STUCK_CALLS = 64
"""Calls of plain functions that went over their time and still run: a thread cannot be stopped, so beyond this the run ends."""


class PythonTool:
    """Calls a function: an async one in the event loop, a plain one in a thread of its own."""

    def __init__(self, tool: spec.Tool, where: str) -> None:
        """Import it and read its signature; raises UserError naming the field when it cannot be a tool."""
        self.name, self._limit_s, self._where = tool.name, tool.timeout_seconds, f"{where}.function: {tool.function}"
        module, _, name = str(tool.function).partition(":")
        self._function = imported(self._where, module, name)
        parameters, self._checked = _checked(self._function, self._where)
        told = tool.description or (inspect.getdoc(self._function) or "").split("\n\n")[0]
        if not told:
            raise UserError(f"{self._where} has no docstring", f"write one, or set {where}.description: it is what the model is told")
        self.schema: Mapping[str, Any] = schema_of(tool.name, told, tool.parameters or parameters)
        self._stuck = 0

    async def call(self, arguments: Mapping[str, Any]) -> Answer:
        """See Tool. Raises UserError when too many calls hang."""
        if self._stuck >= STUCK_CALLS:
            raise UserError(
                f"{self._where}: {self._stuck} calls took more than {self._limit_s:g} s and never returned",
                "give what it waits for a time limit of its own, or make it async",
            )
        try:
            async with asyncio.timeout(self._limit_s) as clock:
                if inspect.iscoroutinefunction(self._function):
                    value = await self._checked(**arguments)
                else:
                    value = await self._in_thread(arguments, clock)
            return Answer(value if isinstance(value, str) else _text(value))
        except ValidationError as error:
            return Answer(f"error: {_told(error)}", "error")
        except UserError:
            raise
        except ToolError as error:
            return Answer(f"error: {shortened(str(error), LONGEST_ERROR)}", "error")
        except (Exception, SystemExit, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and cancelling():
                raise
            if isinstance(error, TimeoutError) and clock.expired():
                return Answer(f"error: {self.name} did not answer within {self._limit_s:g} s", "failed")
            own = error.__cause__ if isinstance(error, InvalidInsideError) and error.__cause__ else error
            return Answer(f"error: {shortened(said(own), LONGEST_ERROR)}", "failed")

    async def _in_thread(self, arguments: Mapping[str, Any], clock: asyncio.Timeout) -> Any:
        loop, done = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()

        def tell(set_it: Callable[[Any], None], value: Any) -> None:
            if not done.done():
                set_it(value)

        def run() -> None:
            try:
                found: Any = self._checked(**arguments)
                set_it = done.set_result
            except BaseException as error:
                bearable = isinstance(error, Exception) and not isinstance(error, StopIteration)  # no future takes that one
                found, set_it = error if bearable else RuntimeError(said(error)), done.set_exception
            with suppress(RuntimeError):  # the run may be over
                loop.call_soon_threadsafe(tell, set_it, found)

        thread = threading.Thread(target=run, name=f"tool {self.name}", daemon=True)
        thread.start()
        try:
            return await done
        except asyncio.CancelledError:
            # When the episode was given up there is some time left: only what goes over it is stuck.
            left = 0.0 if clock.expired() else max(0.0, (clock.when() or 0.0) - loop.time())
            self._stuck += left == 0
            threading.Thread(target=self._came_back, args=(thread, left), daemon=True).start()
            raise

    def _came_back(self, thread: threading.Thread, left: float) -> None:
        if left > 0:
            thread.join(left)
            if not thread.is_alive():
                return
            self._stuck += 1
        thread.join()
        self._stuck -= 1

    async def close(self) -> None:
        """Nothing to free: threads are daemons."""


def _checked(function: Any, where: str) -> tuple[dict[str, Any], Callable[..., Any]]:
    kinds = {p.kind for p in inspect.signature(function).parameters.values()}
    if kinds & {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.POSITIONAL_ONLY}:
        raise UserError(f"{where} takes arguments by place", "tools are called by name: give every parameter a name")
    try:
        return dict(TypeAdapter(function).json_schema()), validate_call(_told_apart(function))
    except (PydanticUserError, TypeError, NameError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{where}: its parameters have types JSON cannot say ({reason})", "annotate them with plain types") from error


def _told_apart(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function with its own ValidationErrors as InvalidInsideError."""
    if inspect.iscoroutinefunction(function):

        @wraps(function)
        async def waited(*given: Any, **named: Any) -> Any:
            try:
                return await function(*given, **named)
            except ValidationError as error:
                raise InvalidInsideError from error

        return waited

    @wraps(function)
    def plain(*given: Any, **named: Any) -> Any:
        try:
            return function(*given, **named)
        except ValidationError as error:
            raise InvalidInsideError from error

    return plain


def _told(error: ValidationError) -> str:
    parts = (f"{'.'.join(map(str, e['loc'])) or 'arguments'}: {e['msg']}" for e in error.errors(include_url=False))
    return shortened("; ".join(parts), LONGEST_ERROR)


def _text(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        return str(value)
