"""Tools and arguments as bad as they come: each still ends as an answer, the model's mistake or a failure, and never ends the engine."""

import asyncio
from typing import Any

import pytest
from tests.unit.lprl_workload.agent.families import tokenizer
from tests.unit.lprl_workload.agent.test_tool_loop import CALL, Played, run
from tests.unit.lprl_workload.agent.test_tools import WHERE, called

from lprl_api.spec import episode as spec
from lprl_api.wire.progress import EpisodeReport
from lprl_workload.agent.between import TurnTokens
from lprl_workload.agent.tool_python import PythonTool
from lprl_workload.agent.toolbox import CUT

HERE = __name__


class Unsayable:
    """Has no text."""

    def __str__(self) -> str:
        """Refuse."""
        raise ValueError("no text")


def unsayable() -> object:
    """Return what has no text."""
    return Unsayable()


def deep() -> object:
    """Return a list no JSON encoder follows."""
    found: list[Any] = []
    for _ in range(10_000):
        found = [found]
    return found


def exhausted() -> str:
    """Ask an iterator for more than it has."""
    raise StopIteration


def late() -> str:
    """Time out by itself."""
    raise TimeoutError("the database timed out")


async def leaves() -> str:
    """End the process."""
    raise SystemExit(3)


async def cancelled() -> str:
    """Wait for a task of its own that was cancelled."""
    task = asyncio.ensure_future(asyncio.sleep(60))
    task.cancel()
    await task
    return "done"


def half(a: int, b: int) -> str:
    """Return half of a character."""
    return f"{a * b}\ud800"


def breaks(a: int, b: int) -> str:
    """Break, and quote what it was given."""
    raise LookupError(f"no row {a} \ud800")


def made(function: str, name: str = "t") -> PythonTool:
    return PythonTool(spec.Tool(name=name, function=f"{HERE}:{function}", timeoutSeconds=20), WHERE)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("unsayable", "no text"),
        ("deep", "RecursionError"),
        ("exhausted", "StopIteration"),
        ("late", "the database timed out"),
        ("leaves", "SystemExit"),
        ("cancelled", "CancelledError"),
    ],
)
def test_whatever_a_function_does_its_call_ends_as_failed_and_says_why(function: str, said: str) -> None:
    answer = called(made(function))
    assert answer.how == "failed" and said in answer.text


def test_half_of_a_character_in_an_answer_is_no_ones_failure() -> None:
    episode = run(Played([CALL, "42"]), [made("half", "multiply")])
    assert episode.finish == "stop" and episode.counts == {"ok": 1} and not episode.failures


def test_half_of_a_character_in_a_failure_can_be_told() -> None:
    """Progress is JSON: a reason that is no text would end the driver."""
    episode = run(Played([CALL]), [made("breaks", "multiply")])
    assert episode.finish == "failed"
    told = EpisodeReport(drawn=1, failed=1, aborted=0, turns=1.0, calls={}, failures=tuple(episode.failures))
    assert "no row 6 ?" in told.model_dump_json()


@pytest.mark.parametrize("value", ["NaN", "-Infinity", '"\\ud800"'])
def test_arguments_that_json_cannot_say_are_the_models_mistake(value: str) -> None:
    """Else a model could leave a losing episode, which takes no part in the loss when its tool fails."""
    call = f'<tool_call>\n{{"name": "multiply", "arguments": {{"a": 6, "b": {value}}}}}\n</tool_call>'
    episode = run(Played([call, "42"]), [made("half", "multiply")])
    assert episode.finish == "stop" and episode.counts == {"error": 1}
    assert "JSON" in episode.said[0][0][1]


class Counting:
    """A tokenizer that knows the longest text it was given."""

    def __init__(self, real: Any) -> None:
        self.real, self.longest = real, 0

    def __call__(self, text: str, **options: Any) -> Any:
        """Tokenise."""
        self.longest = max(self.longest, len(text))
        return self.real(text, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


def test_of_a_huge_answer_no_more_is_tokenised_than_can_be_kept() -> None:
    counting = Counting(tokenizer("qwen"))
    between = TurnTokens(counting, frozenset(), {})
    huge = between.cut("x1" * 500_000, 64, CUT)
    assert huge.endswith(CUT) and huge.startswith("x1x1")
    assert counting.longest < 10_000
    short = between.cut("x1" * 200, 64, CUT)
    assert short.endswith(CUT) and len(tokenizer("qwen")(short.removesuffix(CUT), add_special_tokens=False)["input_ids"]) == 64
