"""What spec.episode names is refused by field, file and reason before anything starts."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.unit.lprl_workload.agent.families import tokenizer

from lprl_api.errors import UserError
from lprl_api.names import tool_authorization
from lprl_api.spec.algorithm import Data
from lprl_api.spec.episode import Episode
from lprl_workload.agent.named import check_episode, load_function, load_tools
from lprl_workload.rollout.dataset import PromptDataset

ROLLOUTS = "tests.unit.lprl_workload.agent.rollouts"
MULTIPLY = {"name": "multiply", "function": f"{ROLLOUTS}:multiply"}
DATA = Data.model_validate({"prompts": {"volume": "v", "path": "p.jsonl"}})
REMOTE = {
    "name": "t",
    "url": "https://t/x",
    "description": "d",
    "parameters": {"type": "object"},
    "headersSecret": {"name": "s", "key": "k"},
}


def tools(*given: dict[str, Any], **more: Any) -> Episode:
    return Episode.model_validate({"type": "tools", "tools": given, **more})


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("nowhere:f", "No module named 'nowhere'"),
        (f"{ROLLOUTS}:missing", "has no 'missing'"),
        (f"{ROLLOUTS}:not_async", r"is no async function \(.*rollouts\.py line \d+\)"),
        (f"{ROLLOUTS}:wrong_signature", r"takes \(prompt: Any\) -> None, is called as async f.*rollouts\.py line \d+"),
        (f"{ROLLOUTS}:STOPS", "is a tuple, needs an async function"),
    ],
)
def test_what_cannot_be_a_rollout_is_refused_with_file_and_reason(path: str, said: str) -> None:
    with pytest.raises(UserError, match=f"episode\\.function: {path}.*{said}"):
        load_function(path)


def test_a_secret_comes_by_the_environment_of_its_tool() -> None:
    episode = tools(MULTIPLY, REMOTE)
    with pytest.raises(UserError, match=r"episode\.tools\[1\]\.headersSecret: its value is missing"):
        load_tools(episode, {})
    assert set(load_tools(episode, {tool_authorization(1): "Bearer x\n"})) == {"multiply", "t"}
    assert [s["function"]["name"] for s in check_episode(episode, DATA, tokenizer("qwen"))] == ["multiply", "t"], "told without the secret"


def deaf(template: str) -> Any:
    made = tokenizer("qwen")
    found = made.__class__(tokenizer_object=made.backend_tokenizer, eos_token="<|im_end|>")
    found.chat_template = template
    return found


def test_a_template_that_cannot_tell_or_write_or_hear_of_tools_is_refused() -> None:
    episode = tools(MULTIPLY)
    with pytest.raises(UserError, match=r"episode\.tools: the chat template has no word for tools"):
        check_episode(episode, DATA, deaf("{% for m in messages %}{{ m.content }}{% endfor %}"))
    mute = "{{ tools }}{% for m in messages %}{{ m.content }}{% endfor %}"
    with pytest.raises(UserError, match=r"episode\.callFormat: the chat template writes no tool calls"):
        check_episode(episode, DATA, deaf(mute))
    check_episode(tools(MULTIPLY, callFormat="hermes"), DATA, deaf(mute))
    with pytest.raises(UserError, match="leaves out a message of role tool"):
        hearing = "{{ tools }}{% for m in messages if m.role != 'tool' %}{{ m.content }}{% endfor %}"
        check_episode(tools(MULTIPLY, callFormat="hermes"), DATA, deaf(hearing))


def test_a_rollout_of_the_users_own_may_tell_of_tools_itself() -> None:
    episode = Episode.model_validate({"type": "python", "function": f"{ROLLOUTS}:with_tools", "tools": [MULTIPLY]})
    assert check_episode(episode, DATA, deaf("{% for m in messages %}{{ m.content }}{% endfor %}")) == []
    assert len(check_episode(episode, DATA, tokenizer("qwen"))) == 1


def test_prompts_tell_the_model_of_the_tools(tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text(json.dumps({"prompt": "6 times 7?", "label": "42"}) + "\n")
    told = check_episode(tools(MULTIPLY), DATA, tokenizer("qwen"))
    for schemas in ([], told):
        (prompt,), _ = PromptDataset(file, DATA, tokenizer("qwen"), 0, tools=schemas).take(0, 1)
        assert ("Multiply two numbers." in prompt.text) == bool(schemas)
        assert tokenizer("qwen").decode(prompt.token_ids.tolist()) == prompt.text
