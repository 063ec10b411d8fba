"""PURE: jobs as lines of text."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from lprl_api.names import Condition
from lprl_api.wire.status import Phase
from lprl_cli import exits
from lprl_cli.live import duration, last_step, printable

Document = Mapping[str, Any]
HEAD = ("NAME", "PHASE", "PRECISION", "NODES", "CONVERTED", "STEP", "REWARD", "MISMATCH", "TOKENS/S", "LEFT", "ATTEMPT", "AGE", "MESSAGE")
LEAST = (12, 12, 12, 5, 9, 9, 7, 9, 9, 9, 7, 4, 0)
"""Widths of lines that follow each other, when later ones are not known yet."""
EVENTS = 10
MESSAGE = 160
"""Characters of a message in a table; `status NAME` shows it whole."""


def row(document: Document, now: datetime) -> tuple[str, ...]:
    """Return a job's cells below HEAD."""
    status = document.get("status") or {}
    training = status.get("training") or {}
    effective = status.get("effectivePrecision")
    running = status.get("phase") == Phase.RUNNING
    values = (
        document["metadata"]["name"],
        phase(document),
        effective or status.get("precision"),
        (status.get("nodes") or {}).get("summary"),
        (status.get("conversion") or {}).get("progress"),
        training.get("summary"),
        training.get("reward"),
        training.get("mismatch"),
        training.get("tokensPerSecond"),
        duration(training.get("secondsLeft")) if running else None,
        status.get("attempt"),
        age(document["metadata"].get("creationTimestamp"), now),
        printable(status.get("message"))[:MESSAGE],
    )
    return tuple("-" if v in (None, "") else printable(v) for v in values)


def phase(document: Document) -> str:
    """Return the phase; what is not decided yet says so."""
    return str((document.get("status") or {}).get("phase") or Phase.PENDING)


def lines(documents: Iterable[Document], now: datetime, namespaces: bool = False) -> list[str]:
    """Return the table of jobs, one line each below the head."""
    listed = list(documents)
    rows: list[tuple[str, ...]] = [HEAD, *(row(d, now) for d in listed)]
    if namespaces:
        spaces = ["NAMESPACE", *(str(d["metadata"]["namespace"]) for d in listed)]
        rows = [(space, *r) for space, r in zip(spaces, rows, strict=True)]
    return aligned(rows)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows as lines of equal columns."""
    widths = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
    return ["  ".join(text.ljust(width) for text, width in zip(r, widths, strict=True)).rstrip() for r in rows]


def running_line(cells: Sequence[str]) -> str:
    """Return cells as a line that stands below those printed earlier."""
    return "  ".join(text.ljust(width) for text, width in zip(cells, LEAST, strict=True)).rstrip()


def details(document: Document, events: Sequence[Document], now: datetime) -> list[str]:
    """Return what `status NAME` shows below the table: message, plan, conditions, failures, events."""
    status = document.get("status") or {}
    found = ["", *shown_lines(status["message"])] if status.get("message") else []
    facts = [(name, printable(value)) for name, value in _facts(status) if value]
    found += ["", *(f"{name:<12} {value}" for name, value in facts)] if facts else []
    conditions = [
        (*(printable(c[key]) for key in ("type", "status", "reason")), age(c.get("lastTransitionTime"), now), printable(c.get("message")))
        for c in status.get("conditions") or ()
    ]
    found += _section(("CONDITION", "STATUS", "REASON", "SINCE", "MESSAGE"), conditions)
    failures = [
        (*(printable(f[key]) for key in ("attempt", "reason", "step")), age(f.get("time"), now), printable(f.get("message")))
        for f in status.get("failures") or ()
    ]
    found += _section(("FAILED ATTEMPT", "REASON", "STEP", "AGO", "MESSAGE"), failures)
    told = [
        (_span(now - event_time(e)), *(printable(e.get(key)) for key in ("type", "reason", "message")))
        for e in sorted(events, key=event_time)[-EVENTS:]
    ]
    return found + _section(("EVENT AGO", "TYPE", "REASON", "MESSAGE"), told)


def _facts(status: Document) -> list[tuple[str, str]]:
    training = status.get("training") or {}
    return [
        ("plan", str((status.get("plan") or {}).get("summary", ""))),
        ("last step", last_step(training)),
        ("evaluation", _evaluation(training)),
        ("checkpoint", str((training.get("checkpoint") or {}).get("path", ""))),
        ("export", str(training.get("export") or "")),
        ("restarts", str(status.get("restartsUsed") or "")),
    ]


def _evaluation(training: Document) -> str:
    reward, found = training.get("evaluationReward"), training.get("evaluation") or {}
    version = found.get("weightVersion")
    told = [f"step {found['step']}, weights {version}"] if version is not None and "step" in found else []
    told += [str(found["served"])] if found.get("served") else []
    return f"{reward} ({'; '.join(told)})" if reward and told else str(reward or "")


def _section(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    return ["", *aligned([head, *rows])] if rows else []


def event_time(event: Document) -> datetime:
    """Return when an event happened last: whole seconds in one field, microseconds in the other, and either may be missing."""
    times = [event.get("lastTimestamp"), event.get("eventTime"), (event.get("metadata") or {}).get("creationTimestamp")]
    return max((_time(t) for t in times if t), default=datetime.fromtimestamp(0, UTC))


def age(since: str | None, now: datetime) -> str:
    """Return the time since an API time in its two largest units: 45s, 12m, 3h20m, 4d2h."""
    if not since:
        return "-"
    return _span(now - _time(since))


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(UTC)


def _span(passed: timedelta) -> str:
    seconds = max(0, int(passed.total_seconds()))
    days, hours, minutes = seconds // 86400, seconds // 3600 % 24, seconds // 60 % 60
    if days:
        return f"{days}d{hours}h" if hours and days < 10 else f"{days}d"
    if hours:
        return f"{hours}h{minutes}m" if minutes else f"{hours}h"
    return f"{minutes}m{seconds % 60}s" if 0 < minutes < 10 else f"{minutes}m" if minutes else f"{seconds}s"


def shown_lines(text: Any) -> list[str]:
    """Return the lines of a text, each without characters that move a terminal's cursor."""
    return [printable(line) for line in str(text).splitlines()]


def outcome(document: Document) -> int | None:
    """Return the exit code a job's end stands for, None while it goes on."""
    true = {c["type"] for c in (document.get("status") or {}).get("conditions") or () if c["status"] == "True"}
    if Condition.FAILED in true:
        return exits.JOB_FAILED
    if Condition.COMPLETE in true:
        return exits.OK
    # Suspended as the user wants it now: right after a resume the status still tells of before.
    if phase(document) == Phase.SUSPENDED and (document.get("spec") or {}).get("suspend"):
        return exits.SUSPENDED
    return None
