"""Logs: one JSON object a line with the fields of `extra`, or text for people."""

import json
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "k8s_ref", "k8s_skip", "settings"}

_ABOUT: ContextVar[Mapping[str, Any] | None] = ContextVar("about", default=None)


@contextmanager
def about(**found: Any) -> Iterator[None]:
    """Have every line of this thread carry these fields, inside."""
    token = _ABOUT.set({**(_ABOUT.get() or {}), **found})
    try:
        yield
    finally:
        _ABOUT.reset(token)


class JsonFormatter(logging.Formatter):
    """`{"time": ..., "level": ..., "logger": ..., "message": ..., <fields>}`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line."""
        found: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **fields(record),
        }
        if record.exc_info:
            found["traceback"] = self.formatException(record.exc_info)
        return json.dumps(found, default=str)


class TextFormatter(logging.Formatter):
    """`12:00:00 info  message  job=x namespace=y`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line, with the traceback below it where there is one."""
        time = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S")
        extra = " ".join(f"{k}={v}" for k, v in fields(record).items())
        text = f"{time} {record.levelname.lower():7} {record.getMessage()}" + (f"  {extra}" if extra else "")
        return text + (f"\n{self.formatException(record.exc_info)}" if record.exc_info else "")


def fields(record: logging.LogRecord) -> dict[str, Any]:
    """What the caller gave as `extra`, and what the lines are about."""
    return {**(_ABOUT.get() or {}), **{k: v for k, v in vars(record).items() if k not in _STANDARD}}


def set_up(level: str, form: str) -> None:
    """Log to standard output; kopf and the HTTP libraries only from warnings on."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in ("kopf", "urllib3", "aiohttp", "asyncio", "kubernetes"):
        logging.getLogger(noisy).setLevel(logging.DEBUG if level == "debug" and noisy == "kopf" else logging.WARNING)
