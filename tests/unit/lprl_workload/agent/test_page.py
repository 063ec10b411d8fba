"""The code that docs/rollouts.md shows: imported and called as it is printed."""

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.pages import blocks
from tests.unit.lprl_workload.agent.families import tokenizer

from lprl_api.spec.episode import Episode, Tool
from lprl_workload.agent.between import TurnTokens
from lprl_workload.agent.conversation import Conversation, Limits
from lprl_workload.agent.named import load_function
from lprl_workload.agent.runner import Row
from lprl_workload.agent.tool import Answer
from lprl_workload.agent.tool_python import PythonTool
from lprl_workload.agent.toolbox import Toolbox
from lprl_workload.data import SamplingParams
from lprl_workload.rollout.requests import Chunk, Request

PAGE = "docs/rollouts.md"
MADE = tokenizer("qwen")
END = int(MADE.convert_tokens_to_ids("<|im_end|>"))


@pytest.fixture
def shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's modules, importable."""
    for block in blocks(PAGE):
        name = re.match(r"# (\w+)\.py\n", block.text)
        if block.language == "python" and name:
            (tmp_path / f"{name[1]}.py").write_text(block.text)
            monkeypatch.delitem(sys.modules, name[1], raising=False)
    monkeypatch.syspath_prepend(tmp_path)


def test_the_tool_shown_answers_and_refuses(shown: None) -> None:
    tool = PythonTool(Tool(name="divide", function="my_tools:divide"), "episode.tools[0]")
    assert tool.schema["function"]["description"] == "Divide a by b."
    assert asyncio.run(tool.call({"a": 1, "b": 4})) == Answer("0.25")
    assert asyncio.run(tool.call({"a": 1, "b": 0})) == Answer("error: b is 0", "error")


class Says:
    """A policy that says given lines."""

    def __init__(self, *lines: str) -> None:
        self.lines = list(lines)

    async def generate(self, request: Request) -> AsyncIterator[Chunk]:
        ids = np.asarray([*MADE(self.lines.pop(0), add_special_tokens=False)["input_ids"], END], np.int32)
        yield Chunk(ids, np.zeros(len(ids), np.float32), 0, "stop")


def test_the_rollout_shown_talks_until_the_number_is_found(shown: None) -> None:
    policy: Any = Says("50", "75", "62", "never said")
    talk = Conversation(
        "0", np.zeros(1, np.int32), 0, SamplingParams(1.0, 1.0, None, 9), Limits(5, 600, 50), policy,
        TurnTokens(MADE, frozenset([END]), {}), lambda ids: str(MADE.decode(ids)).replace("<|im_end|>", ""),
    )  # fmt: skip
    function = load_function("my_rollouts:guess")
    asyncio.run(function(Row("guess", "62", {}, 0, 0), talk, Toolbox({}, None)))  # type: ignore[arg-type]
    assert policy.lines == ["never said"]
    assert [text for ((_, text),) in talk.said] == ["higher", "lower"]


def test_the_manifests_shown_are_valid() -> None:
    import yaml

    found = [yaml.safe_load(b.text)["episode"] for b in blocks(PAGE) if b.language == "yaml" and b.text.startswith("# in spec")]
    assert [Episode.model_validate(one).type for one in found] == ["tools", "tools", "python"]
