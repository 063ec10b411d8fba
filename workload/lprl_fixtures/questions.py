"""Questions a small real model can learn to answer: train and held-out files whose labels a `exact` reward compares.

Every prompt is a chat: what to answer with, three worked examples, the question. Easy to hard; measured with the untrained
SmolLM2-135M-Instruct at temperature 1 in float32 (512 samples each, answers of at most 6 tokens): how often it is right by itself.
"""

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lprl_api.errors import UserError

Question = Literal["add1", "compare", "count", "add2", "story"]
SYSTEM = "Answer with a number only."
Pair = tuple[str, str]
"""Question and answer."""


def _sums(low: int, high: int) -> Iterator[Pair]:
    for a in range(low, high):
        for b in range(10):
            yield f"{a} + {b}", str(a + b)


COMPARISONS = 4000


def _comparisons() -> Iterator[Pair]:
    rng = random.Random("comparisons")
    for _ in range(COMPARISONS):
        a, b, c = rng.sample(range(10, 100), 3)
        yield f"largest of {a}, {b} and {c}", str(max(a, b, c))


WORDS = (
    "banana", "apple", "pepper", "cheese", "rabbit", "coffee", "kitten", "summer", "balloon", "butter", "carrot", "dinner", "eleven",
    "flower", "giggle", "hammer", "island", "jelly", "kangaroo", "lettuce", "mirror", "noodle", "otter", "puzzle", "queen", "ribbon",
    "saddle", "tomato", "umbrella", "valley", "window", "yellow", "zipper", "bottle", "cotton", "dollar", "engine", "finger", "garden",
)  # fmt: skip


def _letters() -> Iterator[Pair]:
    for word in WORDS:
        for letter in "abcdefghijklmnopqrstuvwxyz":
            if letter in word or letter in "etaoinsr":
                yield f"letter {letter} in {word}", str(word.count(letter))


NAMES = ("Tom", "Ann", "Ben", "Mia", "Leo", "Zoe")
THINGS = ("apples", "books", "coins", "pens")


def _stories() -> Iterator[Pair]:
    for name in NAMES:
        for thing in THINGS:
            for a in range(1, 7):
                for b in range(1, 5):
                    yield f"{name} has {a} {thing}. {name} gets {b} more {thing}. How many {thing} does {name} have?", str(a + b)
                    if a > b:
                        yield f"{name} has {a} {thing}. {name} loses {b} {thing}. How many {thing} does {name} have?", str(a - b)


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of question."""

    pairs: Callable[[], Iterator[Pair]]
    """Every question there is."""
    shots: tuple[Pair, ...]
    """Worked examples; never asked."""
    untrained: float
    """Share of right answers of the untrained model at temperature 1."""


KINDS: dict[Question, Kind] = {
    "add1": Kind(lambda: _sums(0, 10), (("2 + 3", "5"), ("7 + 1", "8"), ("4 + 6", "10")), 0.168),
    "compare": Kind(
        _comparisons, (("largest of 12, 31 and 20", "31"), ("largest of 70, 15 and 62", "70"), ("largest of 44, 45 and 46", "46")), 0.297
    ),
    "count": Kind(_letters, (("letter p in pepper", "3"), ("letter t in kitten", "2"), ("letter e in garden", "1")), 0.107),
    "add2": Kind(lambda: _sums(10, 30), (("12 + 3", "15"), ("14 + 5", "19"), ("27 + 8", "35")), 0.068),
    "story": Kind(
        _stories,
        (
            ("Tom has 2 apples. Tom gets 3 more apples. How many apples does Tom have?", "5"),
            ("Ann has 5 coins. Ann loses 1 coins. How many coins does Ann have?", "4"),
            ("Leo has 1 pens. Leo gets 1 more pens. How many pens does Leo have?", "2"),
        ),
        0.066,
    ),
}


def messages(kind: Question, question: str) -> list[dict[str, str]]:
    """Return the chat that asks one question."""
    chat = [{"role": "system", "content": SYSTEM}]
    for asked, answer in KINDS[kind].shots:
        chat += [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
    return [*chat, {"role": "user", "content": question}]


def split(kind: Question, seed: int, train: int, heldout: int) -> tuple[list[Pair], list[Pair]]:
    """Return training and held-out questions, disjoint and in random order; equal arguments give equal questions.

    Training questions repeat when there are fewer than asked for. Raises UserError when the held-out ones leave none to train on.
    """
    shots = {question for question, _ in KINDS[kind].shots}
    every = [(question, answer) for question, answer in dict(KINDS[kind].pairs()).items() if question not in shots]
    random.Random(f"{kind}:{seed}").shuffle(every)
    if heldout >= len(every):
        raise UserError(
            f"--heldout: {heldout} of {len(every)} questions of kind {kind} leave none to train on", f"at most {len(every) // 2}"
        )
    known = every[heldout:]
    return [known[n % len(known)] for n in range(train)], every[:heldout]


def write_questions(folder: Path, kind: Question, seed: int, train: int, heldout: int) -> None:
    """Write train.jsonl and heldout.jsonl into the existing `folder`."""
    for name, pairs in zip(("train.jsonl", "heldout.jsonl"), split(kind, seed, train, heldout), strict=True):
        (folder / name).write_text(_lines(kind, pairs))


def _lines(kind: Question, pairs: Sequence[Pair]) -> str:
    return "".join(json.dumps({"prompt": messages(kind, question), "label": answer}) + "\n" for question, answer in pairs)
