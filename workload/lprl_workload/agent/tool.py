"""A tool: what the model is told of it, and a call that always ends in one of three ways within its time limit."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

LONGEST_ERROR = 500
"""Characters of an error the model is told."""


@dataclass(frozen=True, slots=True)
class Answer:
    """How a call ended."""

    text: str
    """What the model is told."""
    how: Literal["ok", "error", "failed"] = "ok"
    """ok: an answer. error: the model called it wrongly, or the tool refused; it is told so and may go on.
    failed: no answer although it was called rightly (time limit, service away, error inside the tool): not the model's doing.
    """


class Tool(Protocol):
    """Something the model may call."""

    @property
    def name(self) -> str:
        """What the model calls it."""

    @property
    def schema(self) -> Mapping[str, Any]:
        """OpenAI-style description for the chat template: type, function (name, description, parameters)."""

    async def call(self, arguments: Mapping[str, Any]) -> Answer:
        """Return how the call ended; never raises for what the tool or the model did."""

    async def close(self) -> None:
        """Free what it holds."""


class EpisodeTool(Tool, Protocol):
    """A tool as one episode has it."""

    @property
    def waited_s(self) -> float:
        """Seconds that its calls waited for the tool to be there."""


@runtime_checkable
class KeepsState(Protocol):
    """A tool that every episode has one of its own of, from its first call to its end."""

    def opened(self, episode: str) -> EpisodeTool:
        """Return the tool of the episode named (a name no other episode has); its `close` ends it and never waits."""


class ToolError(Exception):
    """Raised by a tool that refuses a call: the model is told its message, and the call counts as the model's mistake."""


def schema_of(name: str, description: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return a tool's description as chat templates take it."""
    return {"type": "function", "function": {"name": name, "description": description, "parameters": dict(parameters)}}
