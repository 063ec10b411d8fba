"""Jobs as lines, and the exit code of their end."""

from datetime import UTC, datetime
from typing import Any

import pytest

from lprl_cli.cluster import table

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)


def job(phase: str = "Running", suspend: bool = False, true: tuple[str, ...] = (), **status: Any) -> dict[str, Any]:
    conditions = [
        {"type": t, "status": "True", "reason": "Because", "message": "said\nso", "lastTransitionTime": "2026-01-01T11:59:15Z"}
        for t in true
    ]
    return {
        "metadata": {"name": "toy", "namespace": "team", "uid": "u", "creationTimestamp": "2026-01-01T10:30:00Z"},
        "spec": {"suspend": suspend},
        "status": {"phase": phase, "conditions": conditions, **status},
    }


TRAINING = {"summary": "12/50", "step": 12, "reward": "0.613", "mismatch": "1.10e-06", "tokensPerSecond": "900", "secondsLeft": 75}
FULL = job(
    precision="int4-qat/int4",
    nodes={"summary": "2/2"},
    conversion={"progress": "4/4"},
    training=TRAINING,
    attempt=2,
    message="step 12 of 50",
    failures=[{"attempt": 1, "reason": "HeadLost", "message": "gone", "step": 7, "time": "2026-01-01T11:00:00Z"}],
    true=("Progressing",),
)


def test_a_running_job_is_one_line() -> None:
    cells = dict(zip(table.HEAD, table.row(FULL, NOW), strict=True))
    assert cells == {
        "NAME": "toy",
        "PHASE": "Running",
        "PRECISION": "int4-qat/int4",
        "NODES": "2/2",
        "CONVERTED": "4/4",
        "STEP": "12/50",
        "REWARD": "0.613",
        "MISMATCH": "1.10e-06",
        "TOKENS/S": "900",
        "LEFT": "0:01:15",
        "ATTEMPT": "2",
        "AGE": "1h30m",
        "MESSAGE": "step 12 of 50",
    }


def test_a_job_no_operator_has_seen_is_pending() -> None:
    fresh = {"metadata": {"name": "toy", "namespace": "team"}}
    assert table.row(fresh, NOW)[:3] == ("toy", "Pending", "-")
    assert table.details(fresh, [], NOW) == []
    assert table.outcome(fresh) is None


def test_what_is_served_instead_is_shown() -> None:
    fallen = job(precision="bf16/fp8", effectivePrecision="bf16/bf16")
    assert table.row(fallen, NOW)[2] == "bf16/bf16"


def test_columns_stand_below_each_other() -> None:
    lines = table.lines([FULL, job("Pending")], NOW, namespaces=True)
    assert len({line.index("Running") for line in lines if "Running" in line} | {lines[0].index("PHASE")}) == 1
    assert lines[0].startswith("NAMESPACE  NAME") and lines[2].startswith("team       toy   Pending")


def test_details_hold_everything_on_lines_of_their_own() -> None:
    events = [
        {"type": "Normal", "reason": f"R{i}", "message": "two\nlines\x1b[31m", "lastTimestamp": f"2026-01-01T11:{i:02}:00Z"}
        for i in range(20)
    ]
    text = "\n".join(table.details(FULL, events, NOW))
    assert "step 12 of 50" in text
    assert "Progressing  True    Because  45s    said so" in text
    assert "1               HeadLost  7     1h   gone" in text
    assert "R19" in text and "R10" in text and "R9 " not in text
    assert "\x1b" not in text


ENDS = [
    pytest.param(job("Succeeded", true=("Complete",)), 0, id="succeeded"),
    pytest.param(job("Failed", true=("Failed",)), 10, id="failed"),
    pytest.param(job("Suspended", suspend=True, true=("Suspended",)), 4, id="suspended"),
    pytest.param(job("Suspended", suspend=False, true=("Suspended",)), None, id="resumed-and-not-seen-yet"),
    pytest.param(job("Running", suspend=True), None, id="still-suspending"),
    pytest.param(job("Running"), None, id="running"),
]


@pytest.mark.parametrize(("document", "want"), ENDS)
def test_outcome(document: dict[str, Any], want: int | None) -> None:
    assert table.outcome(document) == want


AGES = [(0, "0s"), (59, "59s"), (61, "1m1s"), (700, "11m"), (3600, "1h"), (12000, "3h20m"), (180000, "2d2h"), (5_000_000, "57d")]


@pytest.mark.parametrize(("seconds", "want"), AGES)
def test_age(seconds: int, want: str) -> None:
    since = datetime.fromtimestamp(NOW.timestamp() - seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert table.age(since, NOW) == want


ESCAPES = "\x1b[31mred\x1b[0m\r\x07 \x9b2J\u202eold"


@pytest.mark.parametrize("where", ["message", "plan", "checkpoint", "export", "summary", "condition", "failure", "event", "reason"])
def test_nothing_a_job_says_moves_the_cursor(where: str) -> None:
    found = job(message="fine", training={**TRAINING}, true=("Progressing",))
    status, events = found["status"], [{"type": "Normal", "reason": "Ran", "message": "fine", "lastTimestamp": "2026-01-01T11:00:00Z"}]
    failure = {"attempt": 1, "reason": "HeadLost", "message": "gone", "step": 7, "time": "2026-01-01T11:00:00Z"}
    if where == "message":
        status["message"] = f"{ESCAPES}\nsecond"
    elif where == "plan":
        status["plan"] = {"summary": ESCAPES}
    elif where == "checkpoint":
        status["training"]["checkpoint"] = {"path": ESCAPES}
    elif where in ("export", "summary"):
        status["training"][where] = ESCAPES
    elif where in ("condition", "reason"):
        status["conditions"][0]["message" if where == "condition" else "reason"] = ESCAPES
    elif where == "failure":
        status["failures"] = [{**failure, "message": ESCAPES, "reason": ESCAPES}]
    else:
        events[0] |= {"message": ESCAPES, "reason": ESCAPES}
    text = "\n".join([*table.lines([found], NOW), *table.details(found, events, NOW)])
    assert "red" in text and "old" in text
    assert [c for c in text if c != "\n" and not c.isprintable()] == []
    assert where != "message" or "\nsecond" in text, "lines of a message stay lines"
