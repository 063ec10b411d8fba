"""The built-in rollout with tools: the model calls tools until it answers without a call, or a limit is reached."""

import asyncio
from collections.abc import Mapping, Sequence

from lprl_workload.agent.conversation import Conversation
from lprl_workload.agent.tool import Answer, Tool
from lprl_workload.agent.tool_calls import Style, ToolCall

CALLS_A_TURN = 16
"""Calls in one turn that are made; the model is told of those beyond."""
CUT = "\n... (cut)"


async def run_tools(episode: Conversation, tools: Mapping[str, Tool], style: Style) -> None:
    """Run `episode` to its end. Calls of one turn run side by side; their answers come in the order of the calls.

    A call the model got wrong (no such tool, arguments that do not fit, the tool's own refusal) is answered with an error that it
    may mend; one that failed although it was right ends the episode as failed.
    """
    while True:
        text = await episode.draw()
        if episode.finish is not None:
            return
        calls = list(style.read(text))
        if not calls:
            episode.finish = "stop"
            return
        if episode.drawn_turns >= episode.limits.turns:
            episode.finish = "turn-limit"
            return
        answers = await asyncio.gather(*(made(call, tools) for call in calls[:CALLS_A_TURN]))
        answers += [Answer(f"error: at most {CALLS_A_TURN} calls a turn", "error")] * (len(calls) - len(answers))
        for call, answer in zip(calls, answers, strict=True):
            episode.counts[answer.how] = episode.counts.get(answer.how, 0) + 1
            if answer.how == "failed":
                episode.fail(f"tool {call.name}: {answer.text}")
        if episode.finish is None:
            put_answers(episode, calls, answers)
        if episode.finish is not None:
            return


async def made(call: ToolCall, tools: Mapping[str, Tool]) -> Answer:
    """Make one call; what cannot be made is answered with why."""
    if call.problem:
        return Answer(f"error: {call.problem}", "error")
    tool = tools.get(call.name)
    if tool is None:
        return Answer(f"error: no tool {call.name!r}; there are {', '.join(tools)}", "error")
    return await tool.call(call.arguments)


def put_answers(episode: Conversation, calls: Sequence[ToolCall], answers: Sequence[Answer]) -> None:
    """Put tools' answers, each cut to the limit, behind the policy's turn."""
    messages = [
        {
            "role": "tool",
            "name": call.name or "unknown",
            "tool_call_id": f"call{episode.drawn_turns:02d}{place:03d}",
            "content": cut(answer.text, episode),
        }
        for place, (call, answer) in enumerate(zip(calls, answers, strict=True))
    ]
    episode.put(messages)


def cut(text: str, episode: Conversation) -> str:
    """Return an answer of at most the limit's tokens: its beginning, and a mark that it was cut."""
    between = episode.between
    if between is None:
        return text
    return between.cut(text, episode.limits.tool_tokens, CUT)
