import collections
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from transformers import AutoTokenizer

from lprl_fixtures.tasks import TASKS, make_rows, with_shuffled_labels, write_task
from lprl_fixtures.tokenizer import CHARACTERS, SPECIALS, write_tokenizer


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("task", TASKS)
def test_labels_follow_from_the_question_and_chance_is_low(task: str) -> None:
    rows = make_rows(task, 3000, seed=1)
    for row in rows:
        digits = [int(c) for c in row.question if c.isdigit()]
        want = {"find": lambda d: d[0], "max": max, "sum": lambda d: sum(d) % 10}[task](digits)
        assert row.label == str(want) and len(digits) == (1 if task == "find" else 2)
    assert len({row.question for row in rows}) == 3000
    counts = collections.Counter(row.label for row in rows)
    assert max(counts.values()) / 3000 < (0.25 if task == "max" else 0.13)


def test_heldout_questions_are_new_and_parquet_equals_jsonl(tmp_path: Path) -> None:
    files = write_task(tmp_path, "find", seed=0, train=400, heldout=100, chat=True, shuffle_labels=False)
    train, held = lines(files.train), lines(files.heldout)
    asked = [row["prompt"][0]["content"] for row in train + held]
    assert len(train) == 400 and len(held) == 100 and len(set(asked)) == 500
    assert pq.read_table(files.train_parquet).to_pylist() == train
    assert pq.read_table(files.heldout_parquet).to_pylist() == held


def test_shuffled_labels_keep_questions_counts_and_heldout_but_carry_nothing(tmp_path: Path) -> None:
    for name, shuffled in (("true", False), ("shuffled", True)):
        (tmp_path / name).mkdir()
        write_task(tmp_path / name, "find", seed=0, train=2000, heldout=50, chat=False, shuffle_labels=shuffled)
    true, shuffled = (lines(tmp_path / name / "train.jsonl") for name in ("true", "shuffled"))
    assert [r["prompt"] for r in true] == [r["prompt"] for r in shuffled]
    assert collections.Counter(r["label"] for r in true) == collections.Counter(r["label"] for r in shuffled)
    assert sum(a["label"] == b["label"] for a, b in zip(true, shuffled, strict=True)) / 2000 < 0.15
    assert lines(tmp_path / "true" / "heldout.jsonl") == lines(tmp_path / "shuffled" / "heldout.jsonl")
    assert with_shuffled_labels(make_rows("find", 50, 3), 1) == with_shuffled_labels(make_rows("find", 50, 3), 1)


def test_tokenizer_round_trips_its_alphabet_and_the_template_adds_turns(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    ids = tokenizer(CHARACTERS, add_special_tokens=True)["input_ids"]
    assert len(ids) == len(CHARACTERS) and tokenizer.decode(ids) == CHARACTERS
    assert len(tokenizer) == len(SPECIALS) + len(CHARACTERS) == 48
    text = tokenizer.apply_chat_template([{"role": "user", "content": "ab3"}], tokenize=False, add_generation_prompt=True)
    assert text == "<|user|>ab3<|assistant|>"
    assert tokenizer.decode([tokenizer.convert_tokens_to_ids("3"), tokenizer.eos_token_id], skip_special_tokens=True) == "3"
    assert tokenizer("É", add_special_tokens=False)["input_ids"] == [tokenizer.unk_token_id]
