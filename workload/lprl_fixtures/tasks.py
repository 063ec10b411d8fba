"""Small verifiable tasks: the answer depends on the prompt, and a randomly initialised model can learn it by RL.

Chance is at most about one in ten. A prompt is six characters, lower-case letters and one or two digits at random places, so
there are about 7e8 of them (`find`) and held-out prompts are new to the model.

- `find`: the digit hidden among the letters (chance 0.1; the one the demo uses).
- `max`: the larger of two digits (best constant answer: 0.19).
- `sum`: the last digit of the sum of two digits (chance 0.1; hard to learn from random weights).
"""

import json
import random
import string
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

Task = Literal["find", "max", "sum"]
TASKS: tuple[Task, ...] = ("find", "max", "sum")
LENGTH = 6
"""Characters of a question."""


@dataclass(frozen=True, slots=True)
class Row:
    """One question and its answer."""

    question: str
    label: str


@dataclass(frozen=True, slots=True)
class TaskFiles:
    """What write_task wrote."""

    train: Path
    heldout: Path
    train_parquet: Path
    heldout_parquet: Path


def _row(task: Task, rng: random.Random) -> Row:
    characters = rng.choices(string.ascii_lowercase, k=LENGTH)
    digits = [rng.randrange(10) for _ in range(1 if task == "find" else 2)]
    for place, digit in zip(rng.sample(range(LENGTH), len(digits)), digits, strict=True):
        characters[place] = str(digit)
    answer = sum(digits) % 10 if task == "sum" else max(digits)
    return Row("".join(characters), str(answer))


def make_rows(task: Task, count: int, seed: int) -> list[Row]:
    """Return `count` rows with distinct questions; equal arguments give equal rows."""
    rng = random.Random(f"{task}:{seed}")
    rows: dict[str, Row] = {}
    while len(rows) < count:
        row = _row(task, rng)
        rows.setdefault(row.question, row)
    return list(rows.values())


def with_shuffled_labels(rows: Sequence[Row], seed: int) -> list[Row]:
    """Deal the labels out at random: same questions, same label counts, nothing left to learn."""
    labels = [row.label for row in rows]
    random.Random(f"labels:{seed}").shuffle(labels)
    return [Row(row.question, label) for row, label in zip(rows, labels, strict=True)]


def _record(row: Row, number: int, split: str, chat: bool) -> dict[str, Any]:
    prompt = [{"role": "user", "content": row.question}] if chat else row.question
    return {"prompt": prompt, "label": row.label, "metadata": {"split": split, "row": number}}


def write_task(folder: Path, task: Task, seed: int, train: int, heldout: int, chat: bool, shuffle_labels: bool) -> TaskFiles:
    """Write train and held-out prompts as JSON lines and parquet; no question is in both.

    Args:
        folder: existing folder.
        task: which task.
        seed: of questions and, when shuffled, labels.
        train: training rows.
        heldout: held-out rows; their labels are always the true ones.
        chat: prompts are lists of chat messages instead of text.
        shuffle_labels: deal the training labels out at random (the control that must not learn).

    """
    import pyarrow as pa  # only who writes parquet needs it
    import pyarrow.parquet as pq

    rows = make_rows(task, train + heldout, seed)
    kept, held = rows[heldout:], rows[:heldout]
    if shuffle_labels:
        kept = with_shuffled_labels(kept, seed)
    files = TaskFiles(*(folder / name for name in ("train.jsonl", "heldout.jsonl", "train.parquet", "heldout.parquet")))
    for part, split, text, table in (
        (kept, "train", files.train, files.train_parquet),
        (held, "heldout", files.heldout, files.heldout_parquet),
    ):
        records = [_record(row, number, split, chat) for number, row in enumerate(part)]
        text.write_text("".join(json.dumps(record) + "\n" for record in records))
        pq.write_table(pa.Table.from_pylist(records), str(table))
    summary = {"task": task, "seed": seed, "train": train, "heldout": heldout, "shuffledLabels": shuffle_labels, "first": asdict(kept[0])}
    (folder / "task.json").write_text(json.dumps(summary, indent=2) + "\n")
    return files
