"""The tools of an episode, as rollouts use them: what the model wrote -> calls -> answers behind its turn."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from lprl_workload.agent.conversation import Conversation
from lprl_workload.agent.tool import Answer, EpisodeTool, KeepsState, Tool
from lprl_workload.agent.tool_calls import Style, ToolCall, sayable
from lprl_workload.episode import WAITED

CALLS_A_TURN = 16
"""Calls in one turn that are made; the model is told of those beyond."""
CUT = "\n... (cut)"
NAME_CHARACTERS = 64
"""Of a tool's name, as in the manifest."""


class Toolbox:
    """What the model may call, and how it writes calls."""

    def __init__(self, tools: Mapping[str, Tool], style: Style | None) -> None:
        """`style`: how the model writes calls; None where its chat template has no way to."""
        self._tools, self._style = tools, style

    @property
    def names(self) -> tuple[str, ...]:
        """What the model calls them."""
        return tuple(self._tools)

    def calls(self, text: str) -> list[ToolCall]:
        """Return the calls that a turn of the policy makes, in order; one that cannot be read has its `problem`.

        Raises:
            RuntimeError: nobody knows how this model writes calls.

        """
        if self._style is None:
            raise RuntimeError("the chat template writes no tool calls: set episode.callFormat")
        return list(map(sayable, self._style.read(text)))

    async def call(self, name: str, **arguments: object) -> Answer:
        """Make one call of the rollout's own; how it ended is in the answer, and nothing is put into the episode or counted."""
        return await self._made(ToolCall(name, arguments))

    async def answer(self, episode: Conversation, calls: Sequence[ToolCall]) -> None:
        """Make the calls of a turn side by side, count how they ended and put their answers behind it, in the order of the calls.

        A call the model got wrong (no such tool, arguments that do not fit, the tool's own refusal) is answered with an error that it
        may mend; one that failed although it was right ends the episode as failed.
        """
        answers = await asyncio.gather(*(self._made(call) for call in calls[:CALLS_A_TURN]))
        answers += [Answer(f"error: at most {CALLS_A_TURN} calls a turn", "error")] * (len(calls) - len(answers))
        for call, answer in zip(calls, answers, strict=True):
            episode.counts[answer.how] = episode.counts.get(answer.how, 0) + 1
            if answer.how == "failed":
                episode.fail(f"tool {call.name}: {answer.text}")
        if episode.finish is None:
            _put(episode, calls, answers)

    @asynccontextmanager
    async def opened(self, episode: Conversation) -> AsyncIterator["Toolbox"]:
        """Give the tools of one episode: those that keep state are its own, and end with it however it ends."""
        name = uuid.uuid4().hex
        own: dict[str, EpisodeTool] = {key: t.opened(name) for key, t in self._tools.items() if isinstance(t, KeepsState)}
        if not own:
            yield self
            return
        try:
            yield Toolbox({**self._tools, **own}, self._style)
        finally:
            for tool in own.values():
                await tool.close()
            waited_s = sum(tool.waited_s for tool in own.values())
            if waited_s:
                episode.counts[WAITED] = round(waited_s * 1000)

    async def close(self) -> None:
        """Free what the tools hold."""
        for tool in self._tools.values():
            await tool.close()

    async def _made(self, call: ToolCall) -> Answer:
        if call.problem:
            return Answer(f"error: {call.problem}", "error")
        tool = self._tools.get(call.name)
        if tool is None:
            return Answer(f"error: no tool {call.name!r}; there are {', '.join(self._tools)}", "error")
        return await tool.call(call.arguments)


def _put(episode: Conversation, calls: Sequence[ToolCall], answers: Sequence[Answer]) -> None:
    """Put answers behind the policy's turn; each names its call as the model did, where its format has ids."""
    episode.put(
        [
            {
                "role": "tool",
                "name": _repeatable(call.name, episode) or "unknown",
                "tool_call_id": call.id or f"call{episode.drawn_turns % 100:02d}{place:03d}",
                "content": episode.cut(answer.text, CUT),
            }
            for place, (call, answer) in enumerate(zip(calls, answers, strict=True))
        ]
    )


def _repeatable(name: str, episode: Conversation) -> str:
    """Return a name the model wrote as its template may repeat it: short, and no special token in it."""
    short = name[:NAME_CHARACTERS]
    return short if episode.between is None else episode.between.harmless(short)
