"""Where a step's metrics go. metrics.jsonl is the record and must not fail; every other sink may, and the run goes on."""

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

log = logging.getLogger(__name__)

Row = Mapping[str, float | int | None]


class Sink(Protocol):
    """Takes one row a step."""

    def write(self, step: int, row: Row) -> None:
        """Record the row of a finished step."""

    def close(self) -> None:
        """Flush and let go."""


class JsonlFile:
    """A file of one JSON object a line, durable line by line, cut back to a step when a run resumes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)

    def append(self, row: Mapping[str, Any]) -> None:
        """Write one line and fsync it."""
        with self.path.open("ab") as file:
            file.write(json.dumps(row, allow_nan=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows; a torn last line (a crash while writing) is left out."""
        if not self.path.exists():
            return []
        found = []
        for line in self.path.read_bytes().split(b"\n")[:-1]:
            try:
                found.append(dict(json.loads(line)))
            except ValueError:
                log.warning("%s: a line that is no JSON is left out", self.path)
        return found

    def truncate_after(self, step: int) -> None:
        """Keep the rows with `step` at most this, so that a resumed run writes the series an uninterrupted one would."""
        if not self.path.exists():
            return
        kept = [row for row in self.rows() if int(row["step"]) <= step]
        aside = self.path.with_suffix(".tmp")
        with aside.open("wb") as file:
            for row in kept:
                file.write(json.dumps(row, allow_nan=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        aside.replace(self.path)


class JsonlSink:
    """Sink into a JsonlFile."""

    def __init__(self, path: Path) -> None:
        self.file = JsonlFile(path)

    def write(self, step: int, row: Row) -> None:
        """Append the row; its `step` key says which step it is."""
        self.file.append({"step": step, **row})

    def close(self) -> None:
        """Nothing is held open."""


class TensorBoardSink:
    """TensorBoard event files; rows after `resume_step` of an earlier attempt are hidden."""

    def __init__(self, folder: Path, resume_step: int) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder), purge_step=resume_step + 1)

    def write(self, step: int, row: Row) -> None:
        """Add every number as a scalar."""
        for name, value in row.items():
            if value is not None:
                self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        self._writer.close()


class PrometheusSink:
    """Gauges lprl_NAME{job="..."} of the newest step on an HTTP port; numbers only."""

    def __init__(self, port: int, address: str, job: str) -> None:
        from prometheus_client import CollectorRegistry, Gauge, start_http_server

        self._registry = CollectorRegistry()
        self._gauge = Gauge
        self._gauges: dict[str, Gauge] = {}
        self._job = job
        self._server, _ = start_http_server(port, addr=address, registry=self._registry)

    def write(self, step: int, row: Row) -> None:
        """Set one gauge a metric, and lprl_step."""
        for name, value in {"step": step, **row}.items():
            if value is None:
                continue
            if name not in self._gauges:
                self._gauges[name] = self._gauge(f"lprl_{name}", f"{name} of the last step", ["job"], registry=self._registry)
            self._gauges[name].labels(self._job).set(value)

    def close(self) -> None:
        """Stop the server."""
        self._server.shutdown()
        self._server.server_close()


class Guarded:
    """A sink that may fail without harm: the first failure is logged, and nothing is sent any more."""

    def __init__(self, name: str, sink: Sink) -> None:
        self._name = name
        self._sink: Sink | None = sink

    def write(self, step: int, row: Row) -> None:
        """Write unless the sink failed before."""
        self._try("write", lambda sink: sink.write(step, row))

    def close(self) -> None:
        """Close unless the sink failed before."""
        self._try("close", lambda sink: sink.close())

    def _try(self, what: str, action: Any) -> None:
        if self._sink is None:
            return
        try:
            action(self._sink)
        except Exception as error:  # third-party services fail in many ways; training must not stop for them
            log.warning("metrics sink %s: %s failed (%s); it is off for the rest of this attempt", self._name, what, error)
            self._sink = None
