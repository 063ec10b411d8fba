import asyncio
import collections
import json
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from lprl_api.spec import episode as spec
from lprl_fixtures.architectures import Size
from lprl_fixtures.lookup import SEE, held, questions, read_secret, value, write_lookup
from lprl_fixtures.lookup_model import ASKS, TOOL, batches, conversation, write_lookup_model
from lprl_fixtures.lookup_server import LookupServer
from lprl_fixtures.tokenizer import build_tool_tokenizer
from lprl_workload.agent.between import style_of_template
from lprl_workload.agent.tool import Answer
from lprl_workload.agent.tool_http import HttpTool


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_values_are_new_for_every_secret_and_chance_is_one_in_a_hundred(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_lookup(tmp_path / name, train=2000, heldout=200)
    one, two = (rows(tmp_path / name / "train.jsonl") for name in ("one", "two"))
    assert [row["prompt"] for row in one] == [row["prompt"] for row in two]
    assert sum(a["label"] == b["label"] for a, b in zip(one, two, strict=True)) / 2000 < 0.03
    assert max(collections.Counter(row["label"] for row in one).values()) / 2000 < 0.03
    asked = {row["prompt"][0]["content"] for row in rows(tmp_path / "one" / "heldout.jsonl")}
    assert len(asked) == 200 and not asked & {row["prompt"][0]["content"] for row in one}


def test_half_of_the_keys_lead_to_another_and_none_further() -> None:
    keys = questions(3000, seed=1)
    led = [key for key in keys if held("s", key).startswith(SEE)]
    assert 0.45 < len(led) / 3000 < 0.55
    for key in led:
        other = held("s", key).removeprefix(SEE)
        assert other[0] == "x" and held("s", other) == value("s", key) and len(value("s", key)) == 2


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LookupServer]:
    write_lookup(tmp_path / "data", train=4, heldout=2)
    with LookupServer(tmp_path / "data", port=0) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield found
        found.shutdown()


def test_the_server_answers_on_loopback_refuses_what_is_no_key_and_counts(server: LookupServer, tmp_path: Path) -> None:
    tool = HttpTool(spec.Tool(name="lookup", url=server.url, description="d", parameters={}), "episode.tools[0]", None)

    async def asked() -> list[Answer]:
        found = [await tool.call(arguments) for arguments in ({"key": "abc"}, {"key": "ABC"}, {}, {"key": 7})]
        await tool.close()
        return found

    right, *wrong = asyncio.run(asked())
    assert right == Answer(held(read_secret(tmp_path / "data"), "abc"))
    assert [answer.how for answer in wrong] == ["error"] * 3
    assert server.calls == 4 and server.server_address[0] == "127.0.0.1"


def test_the_server_needs_the_secret_of_the_prompts(tmp_path: Path) -> None:
    line = [sys.executable, "-X", "importtime", "-m", "lprl_fixtures", "lookup-server", str(tmp_path)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 3 and "secret.txt is not there" in done.stderr
    imported = {text.rpartition("|")[2].strip() for text in done.stderr.splitlines()}
    assert "lprl_fixtures.lookup_server" in imported and not {"torch", "transformers"} & imported, "it starts at once"


def test_played_conversations_teach_only_what_the_assistant_says_and_mostly_guesses() -> None:
    tokenizer, rng = build_tool_tokenizer(), random.Random(3)
    plays = [conversation(rng) for _ in range(2000)]
    asks = sum(len(play) > 2 for play in plays) / 2000
    right = sum(play[-1]["content"] == play[-2]["content"] for play in plays) / 2000
    assert abs(asks - ASKS) < 0.04 and right < 0.2
    for ids, targets in next(batches(tokenizer, seed=0, steps=0)):
        text = tokenizer.decode(ids[0])
        said = "".join(part.split("<|end|>")[0] + "<|end|>" for part in text.split("<|assistant|>")[1:])
        assert tokenizer.decode([token for token in targets[0].tolist() if token >= 0]) == said


@pytest.mark.parametrize(("size", "ffn"), [("demo", 192), ("blocks", 256)])
def test_the_model_loads_with_a_template_that_writes_calls(tmp_path: Path, size: Size, ffn: int) -> None:
    write_lookup_model(tmp_path, steps=1, habits=0, size=size)
    assert json.loads((tmp_path / "config.json").read_text())["intermediate_size"] == ffn
    tokenizer = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    style = style_of_template(tokenizer, {"tools": [TOOL]})
    assert style is not None and style.name == "hermes"
    assert len(tokenizer) == json.loads((tmp_path / "config.json").read_text())["vocab_size"]
