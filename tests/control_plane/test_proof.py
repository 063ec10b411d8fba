"""The proof itself: it passes what is right and sees what is wrong."""

from typing import Any

import pytest
from tests.control_plane.harness.proof import check_log

Entry = dict[str, Any]


def said(event: str, attempt: int, **more: Any) -> Entry:
    """A line of the drivers' log; one pod an attempt."""
    return {"event": event, "attempt": attempt, "pod": f"p{attempt}", **more}


def start(attempt: int, step: int = 0, job: str = "j") -> Entry:
    return said("start", attempt, step=step, job_uid=job)


TRAINED = [start(1), said("step", 1, step=1), said("step", 1, step=2), said("kept", 1, step=2)]
KILLED = [*TRAINED, said("step", 1, step=3), said("killed", 1)]

WRONG = [
    pytest.param([*TRAINED, start(2, 2)], "began while", id="beside-another"),
    pytest.param([*KILLED, start(1, 2)], "began twice", id="twice"),
    pytest.param([*KILLED, start(2, 0)], "newest checkpoint was 2", id="checkpoint-lost"),
    pytest.param([*KILLED, start(2, 3)], "newest checkpoint was 2", id="from-what-was-not-kept"),
    pytest.param([*TRAINED, said("step", 1, step=4)], "step 4 after 2", id="gap"),
    pytest.param([*TRAINED, said("step", 1, step=2)], "step 2 after 2", id="step-twice"),
    pytest.param([*KILLED, said("bug", 2)], "bug", id="bug"),
]


@pytest.mark.parametrize(("log", "words"), WRONG)
def test_wrong(log: list[Entry], words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        check_log(log)


CUT_OFF = [*TRAINED, start(2, 2)]


def test_right() -> None:
    check_log([*KILLED, start(2, 2), said("step", 2, step=3), said("end", 2, code=0, step=3)])
    check_log([*KILLED, start(1, 0, job="another"), said("step", 1, step=1)])
    check_log([*CUT_OFF, said("step", 2, step=3), said("end", 1, code=6, step=2)], cut_off=True)


@pytest.mark.parametrize(
    ("late", "words"),
    [
        (said("step", 1, step=3), "owned the folder"),
        (said("kept", 1, step=2), "owned the folder"),
        (said("end", 1, code=0, step=2), "another word"),
    ],
)
def test_a_driver_that_was_cut_off_does_nothing_any_more(late: Entry, words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        check_log([*CUT_OFF, late], cut_off=True)
