"""Episodes with tools: a played policy says what it is told to, token for token; tools are real."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import numpy as np
import pytest
from tests.unit.lprl_workload.agent.families import tokenizer
from tests.unit.lprl_workload.agent.test_tools import HERE

from lprl_api.spec import episode as spec
from lprl_workload.agent.between import TurnTokens
from lprl_workload.agent.conversation import Conversation, Limits
from lprl_workload.agent.tool import Tool
from lprl_workload.agent.tool_calls import STYLES
from lprl_workload.agent.tool_loop import run_tools
from lprl_workload.agent.tool_python import PythonTool
from lprl_workload.agent.toolbox import CALLS_A_TURN, Toolbox
from lprl_workload.data import SamplingParams
from lprl_workload.episode import Int32, Span
from lprl_workload.rollout.requests import Chunk, Request

MADE = tokenizer("qwen")
END = int(MADE.convert_tokens_to_ids("<|im_end|>"))
HERMES = next(style for style in STYLES if style.name == "hermes")
PROMPT = np.asarray(
    MADE("<|im_start|>user\n6 times 7?<|im_end|>\n<|im_start|>assistant\n", add_special_tokens=False)["input_ids"], np.int32
)
CALL = '<tool_call>\n{"name": "multiply", "arguments": {"a": 6, "b": 7}}\n</tool_call>'


class Played:
    """A policy that says given lines; the second half of each under weights one version newer."""

    def __init__(self, lines: Sequence[str], ends: bool = True) -> None:
        """`ends`: with an end token, within the limit of the request."""
        self.lines, self.ends = list(lines), ends
        self.asked: list[Request] = []

    async def generate(self, request: Request) -> AsyncIterator[Chunk]:
        """Say the next line in two chunks."""
        self.asked.append(request)
        ids = np.asarray(MADE(self.lines.pop(0), add_special_tokens=False)["input_ids"] + [END] * self.ends, np.int32)
        finish = "stop" if len(ids) <= request.sampling.max_response_tokens and self.ends else "length"
        ids = ids[: request.sampling.max_response_tokens]
        half, version = len(ids) // 2, len(self.asked)
        yield Chunk(ids[:half], np.full(half, -0.5, np.float32), version, None)
        yield Chunk(ids[half:], np.full(len(ids) - half, -0.25, np.float32), version + 1, finish)


def text_of(ids: Int32) -> str:
    """Return what tokens say, end of turn apart."""
    return str(MADE.decode(ids.tolist(), skip_special_tokens=False)).replace("<|im_end|>", "")


def tool(name: str, function: str, **changes: Any) -> PythonTool:
    return PythonTool(spec.Tool(name=name, function=f"{HERE}:{function}", **changes), "episode.tools[0]")


def run(policy: Any, tools: Sequence[Tool] = (), **limits: int) -> Conversation:
    episode = Conversation(
        id="17/0",
        prompt=PROMPT,
        seed=77,
        sampling=SamplingParams(1.0, 1.0, None, 200),
        limits=Limits(**{"turns": 4, "tokens": 600, "tool_tokens": 50, **limits}),
        policy=policy,
        between=TurnTokens(MADE, frozenset([END]), {}),
        decode=text_of,
    )
    asyncio.run(run_tools(episode, Toolbox({t.name: t for t in tools}, HERMES)))
    return episode


def test_a_call_is_answered_and_the_next_turn_sees_every_token() -> None:
    policy = Played([CALL, "It is 42."])
    episode = run(policy, [tool("multiply", "multiply")])
    assert episode.finish == "stop"
    assert [turn.drawn for turn in episode.turns] == [True, False, True]
    assert text_of(episode.turns[1].ids) == "\n<|im_start|>user\n<tool_response>\n42\n</tool_response>\n<|im_start|>assistant\n"
    seen = np.concatenate([PROMPT, episode.turns[0].ids, episode.turns[1].ids])
    assert np.array_equal(policy.asked[1].prompt, seen)
    assert episode.counts == {"ok": 1}


def test_log_probabilities_and_versions_belong_to_drawn_tokens_only() -> None:
    episode = run(Played([CALL, "It is 42."]), [tool("multiply", "multiply")])
    first, answer, last = episode.turns
    half = len(first.ids) // 2
    assert first.versions == (Span(1, 0, half), Span(2, half, len(first.ids)))
    assert (len(answer.logprobs), answer.versions) == (0, ())
    assert last.logprobs.tolist() == [-0.5] * (len(last.ids) // 2) + [-0.25] * (len(last.ids) - len(last.ids) // 2)


def test_the_first_turn_is_seeded_as_a_single_one_and_each_turn_by_itself() -> None:
    policy = Played([CALL, CALL, "Done."])
    run(policy, [tool("multiply", "multiply")])
    seeds = [request.seed for request in policy.asked]
    assert seeds[0] == 77
    assert len(set(seeds)) == 3
    assert [request.id for request in policy.asked] == ["17/0/0", "17/0/1", "17/0/2"]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('<tool_call>{"name": "divide", "arguments": {}}</tool_call>', "no tool 'divide'; there are multiply"),
        ('<tool_call>{"name": "multiply", "arguments": {"a": "six"}}</tool_call>', "error: a:"),
        ("<tool_call>multiply 6 7</tool_call>", "error: the tool call is no JSON"),
    ],
)
def test_the_models_mistake_is_told_and_may_be_mended(line: str, told: str) -> None:
    episode = run(Played([line, CALL, "It is 42."]), [tool("multiply", "multiply")])
    assert told in text_of(episode.turns[1].ids)
    assert (episode.finish, episode.counts) == ("stop", {"error": 1, "ok": 1})


@pytest.mark.parametrize(("name", "limit_s"), [("block", 0.05), ("wait", 0.05)])
def test_a_tool_that_does_not_answer_fails_the_episode_visibly(name: str, limit_s: float) -> None:
    line = f'<tool_call>{{"name": "{name}", "arguments": {{"seconds": 1}}}}</tool_call>'
    episode = run(Played([line, "never said"]), [tool(name, name, timeoutSeconds=limit_s)])
    assert episode.finish == "failed"
    assert episode.failures == [f"tool {name}: error: {name} did not answer within {limit_s:g} s"]
    assert episode.counts == {"failed": 1}


def test_limits_of_turns_tokens_and_calls_end_an_episode_as_what_they_are() -> None:
    assert run(Played([CALL] * 9), [tool("multiply", "multiply")], turns=3).finish == "turn-limit"
    assert run(Played([CALL] * 9), [tool("multiply", "multiply")], tokens=60).finish == "length"
    assert run(Played(["on and on"], ends=False)).finish == "length"
    many = run(Played([CALL * (CALLS_A_TURN + 2), "Done."]), [tool("multiply", "multiply")], tokens=6000, turns=3)
    assert many.finish in ("length", "stop")
    assert many.tokens <= 6000


def test_calls_of_one_turn_run_side_by_side_and_answer_in_order() -> None:
    slow = '<tool_call>{"name": "wait", "arguments": {"seconds": 0.2}}</tool_call>'
    episode = run(Played([slow + CALL, "Done."]), [tool("wait", "wait"), tool("multiply", "multiply")])
    told = text_of(episode.turns[1].ids)
    assert told.index("done") < told.index("42")


def test_the_world_is_drawn_by_nobody() -> None:
    drawn: Callable[[Conversation], int] = lambda e: sum(len(t.ids) for t in e.turns if t.drawn)  # noqa: E731
    episode = run(Played([CALL, "It is 42."]), [tool("multiply", "multiply")])
    assert 0 < drawn(episode) < episode.tokens
