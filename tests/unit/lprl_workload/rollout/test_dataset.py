import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lprl_api.errors import UserError
from lprl_api.spec.algorithm import Data
from lprl_fixtures.tokenizer import build_tokenizer
from lprl_workload.data import Prompt
from lprl_workload.rollout.dataset import PromptDataset

TOKENIZER = build_tokenizer()


def data(**more: Any) -> Data:
    rows = {"first_row": more.pop("first_row", 0), "last_row": more.pop("last_row", None)}
    return Data.model_validate({"prompts": {"volume": "v", "path": "p.jsonl", **rows}, "reward": {"type": "exact"}, **more})


def write(path: Path, rows: list[Any]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=3)
    else:
        path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


ROWS = [{"prompt": f"q{i}", "label": i, "metadata": {"n": i}, "other": "x"} for i in range(10)]


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_reads_rows_with_template_label_and_metadata(tmp_path: Path, suffix: str) -> None:
    dataset = PromptDataset(write(tmp_path / f"p.{suffix}", ROWS), data(first_row=2, last_row=8, shuffle=False), TOKENIZER, 0)
    prompts, position = dataset.take(0, 6)
    assert position == 6 and len(dataset) == 6 and dataset.dropped == 0
    assert [p.index for p in prompts] == [2, 3, 4, 5, 6, 7] == [p.index for p in dataset.all()]
    assert prompts[0].text == "<|user|>q2<|assistant|>" and prompts[0].label == "2" and prompts[0].metadata == {"n": 2}
    assert TOKENIZER.decode(prompts[0].token_ids) == prompts[0].text


def plain(prompts: list[Prompt]) -> list[Any]:
    return [(p.index, p.text, p.token_ids.tolist(), p.label, p.metadata, p.origin) for p in prompts]


def test_position_is_pure_and_every_epoch_is_a_new_permutation(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", ROWS)
    dataset = PromptDataset(path, data(), TOKENIZER, 7)
    long, _ = dataset.take(0, 30)
    epochs = [[p.index for p in long[i : i + 10]] for i in (0, 10, 20)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    resumed, position = PromptDataset(path, data(), TOKENIZER, 7).take(17, 8)
    assert plain(resumed) == plain(long[17:25]) and position == 25
    assert plain(PromptDataset(path, data(), TOKENIZER, 8).take(0, 10)[0]) == plain(long[10:20])  # seed + epoch, as documented


@pytest.mark.parametrize(
    ("row", "settings", "text"),
    [
        pytest.param({"prompt": "a1"}, {"apply_chat_template": False}, "a1", id="plain-text"),
        pytest.param({"prompt": "a1"}, {"system_prompt": "be"}, "<|system|>be<|end|><|user|>a1<|assistant|>", id="system-prompt"),
        pytest.param(
            {"prompt": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]},
            {},
            "<|user|>a<|end|><|assistant|>b<|end|><|user|>c<|assistant|>",
            id="messages",
        ),
    ],
)
def test_rendering(tmp_path: Path, row: dict[str, Any], settings: dict[str, Any], text: str) -> None:
    dataset = PromptDataset(write(tmp_path / "p.jsonl", [{**row, "label": "x"}]), data(**settings), TOKENIZER, 0)
    assert dataset.all()[0].text == text


def test_template_gets_tools_and_arguments_and_no_nulls_of_parquet(tmp_path: Path) -> None:
    tokenizer = build_tokenizer()
    said = "{% for m in messages %}{{ m.keys() | list | sort | join }}:{{ m.content }}{% endfor %}"
    tokenizer.chat_template = "{{ tools | length }}{{ mode }}" + said
    messages = [{"role": "user", "content": "a", "name": None}, {"role": "user", "content": "b", "name": "z"}]
    rows = [{"prompt": messages, "label": "1", "tools": json.dumps([{"a": 1}, {"b": 2}])}]
    settings = data(tools_key="tools", chat_template_kwargs={"mode": "q"})
    found = PromptDataset(write(tmp_path / "p.parquet", rows), settings, tokenizer, 0).all()[0].text
    assert found == "2qcontentrole:acontentnamerole:b"


def test_long_prompts_are_dropped_and_counted(tmp_path: Path) -> None:
    rows = [{"prompt": "a" * n, "label": "1"} for n in (1, 5, 20, 3)]
    dataset = PromptDataset(write(tmp_path / "p.jsonl", rows), data(max_prompt_tokens=7, shuffle=False), TOKENIZER, 0)
    assert [p.index for p in dataset.all()] == [0, 1, 3] and dataset.dropped == 1
    with pytest.raises(UserError, match="no prompt left of 4 rows"):
        PromptDataset(tmp_path / "p.jsonl", data(max_prompt_tokens=2), TOKENIZER, 0)


@pytest.mark.parametrize(
    ("row", "settings", "words"),
    [
        pytest.param("{broken", {}, "row 1: not JSON", id="bad-json"),
        pytest.param("[1]", {}, "row 1: found a list, needs a JSON object", id="no-object"),
        pytest.param({"question": "a", "label": 1}, {}, "row 1: no key 'prompt'.*keys found: label, question", id="no-prompt"),
        pytest.param({"prompt": 7, "label": 1}, {}, "row 1 key 'prompt': found an int, needs text or a list", id="number-prompt"),
        pytest.param({"prompt": "", "label": 1}, {"apply_chat_template": False}, "row 1 key 'prompt': empty prompt", id="empty-prompt"),
        pytest.param({"prompt": [], "label": 1}, {}, "row 1 key 'prompt': found an empty list", id="no-messages"),
        pytest.param(
            {"prompt": [{"content": "x"}], "label": 1}, {}, "found a mapping with content, needs a mapping with role", id="no-role"
        ),
        pytest.param(
            {"prompt": "a"}, {}, "row 1: no value under 'label'.*needs the label that reward 'exact'.*keys found: prompt", id="no-label"
        ),
        pytest.param(
            {"prompt": "a", "label": 1, "metadata": [1]}, {}, "row 1 key 'metadata': found a list, needs a mapping", id="metadata"
        ),
        pytest.param({"prompt": "a", "label": 1, "metadata": "{"}, {}, "row 1 key 'metadata': not JSON", id="metadata-text"),
        pytest.param({"prompt": [{"role": "user"}], "label": 1}, {"apply_chat_template": False}, "needs text while", id="no-template"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, row: Any, settings: dict[str, Any], words: str) -> None:
    path = write(tmp_path / "p.jsonl", [ROWS[0], row])
    with pytest.raises(UserError, match=words) as caught:
        PromptDataset(path, data(**settings), TOKENIZER, 0)
    assert str(path) in str(caught.value)


def test_files_and_settings_that_cannot_work(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        PromptDataset(tmp_path / "none.jsonl", data(), TOKENIZER, 0)
    (tmp_path / "p.csv").write_text("a")
    with pytest.raises(UserError, match=r"found \.csv, needs \.jsonl or \.parquet"):
        PromptDataset(tmp_path / "p.csv", data(), TOKENIZER, 0)
    (tmp_path / "p.parquet").write_text("no parquet")
    with pytest.raises(UserError, match="not a readable parquet file"):
        PromptDataset(tmp_path / "p.parquet", data(), TOKENIZER, 0)
    bare = build_tokenizer()
    bare.chat_template = None
    with pytest.raises(UserError, match="no chat template"):
        PromptDataset(write(tmp_path / "p.jsonl", ROWS), data(), bare, 0)
    with pytest.raises(UserError, match=r"data\.systemPrompt"):
        PromptDataset(tmp_path / "p.jsonl", data(apply_chat_template=False, system_prompt="s"), TOKENIZER, 0)
    broken = build_tokenizer()
    broken.chat_template = "{{ raise_exception('only one turn') }}"
    with pytest.raises(UserError, match=r"row 0 key 'prompt': the chat template refused it.*only one turn"):
        PromptDataset(tmp_path / "p.jsonl", data(), broken, 0)


def test_label_may_be_absent_when_the_reward_needs_none(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", [{"prompt": "a"}, {"prompt": "b", "label": [1, 2]}])
    settings = data(reward={"type": "python", "function": "m:f"}, shuffle=False)
    assert [p.label for p in PromptDataset(path, settings, TOKENIZER, 0).all()] == [None, "[1, 2]"]
