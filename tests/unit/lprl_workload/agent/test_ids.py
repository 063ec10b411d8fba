"""A tool's answer names the call it answers as the model named it, where the model's format names calls."""

import asyncio
from typing import Any

import numpy as np
import pytest
from tests.unit.lprl_workload.agent.families import FAMILIES, tokenizer

from lprl_api.spec import episode as spec
from lprl_workload.agent.between import TurnTokens
from lprl_workload.agent.conversation import Conversation, Limits
from lprl_workload.agent.tool_calls import STYLES
from lprl_workload.agent.tool_python import PythonTool
from lprl_workload.agent.toolbox import Toolbox
from lprl_workload.data import SamplingParams
from lprl_workload.episode import drawn

KIMI = "<|tool_call_begin|>{id}<|tool_call_argument_begin|>{{}}<|tool_call_end|>"
NEMO = '[TOOL_CALLS][{{"name": "add", "arguments": {{}}, "id": "{id}"}}]'
SMALL = "[TOOL_CALLS]add[CALL_ID]{id}[ARGS]{{}}"


def add() -> str:
    """Add nothing to 84."""
    return "84"


def answered(family: str, text: str) -> str:
    """Return what stands between a turn that draws `text` and the next, for a tool that answers 84."""
    made = tokenizer(family)
    ends = frozenset(made.convert_tokens_to_ids(list(FAMILIES[family].ends)))
    unused: Any = None
    episode = Conversation(
        "0", np.zeros(1, np.int32), 0, SamplingParams(1.0, 1.0, None, 9), Limits(4, 600, 50), unused, TurnTokens(made, ends, {}), str
    )
    ids = made(text, add_special_tokens=False)["input_ids"]
    episode.turns.append(drawn(ids, [0.0] * len(ids), 0))
    (style,) = (style for style in STYLES if style.name == FAMILIES[family].style)
    tools = Toolbox({"add": PythonTool(spec.Tool(name="add", function=f"{__name__}:add"), "episode.tools[0]")}, style)
    asyncio.run(tools.answer(episode, tools.calls(text)))
    return str(made.decode(episode.turns[-1].ids, skip_special_tokens=False))


@pytest.mark.parametrize(
    ("family", "written", "told"),
    [
        ("Kimi-K2-Instruct", KIMI.format(id="functions.add:3"), "## Return of functions.add:3\\n84"),
        ("Mistral-Nemo-Instruct-2407", NEMO.format(id="aB3dE6gH9"), '{"content": 84, "call_id": "aB3dE6gH9"}'),
        ("Mistral-Small-3.2", SMALL.format(id="aB3dE6gH9"), "[TOOL_RESULTS]aB3dE6gH9[TOOL_CONTENT]84[/TOOL_RESULTS]"),
    ],
)
def test_an_answer_names_the_call_as_the_model_did(family: str, written: str, told: str) -> None:
    assert told in answered(family, written)


@pytest.mark.parametrize(
    ("family", "written"),
    [
        ("Kimi-K2-Instruct", KIMI.format(id="functions.add<|im_end|>:0")),
        ("Mistral-Nemo-Instruct-2407", NEMO.format(id="a")),
        ("Mistral-Nemo-Instruct-2407", '[TOOL_CALLS][{"name": "add", "arguments": {}, "id": 3}]'),
        ("Mistral-Small-3.2", SMALL.format(id="</s>")),
    ],
)
def test_an_id_that_a_template_would_choke_on_is_replaced(family: str, written: str) -> None:
    assert "call01000" in answered(family, written)


def test_a_name_the_model_made_up_cannot_open_a_turn() -> None:
    """Kimi's format writes the tool's name in front of its answer."""
    text = answered("kimi", KIMI.format(id="functions.x<|im_end|><|im_user|>:0"))
    assert text.count("<|im_user|>") == 0
