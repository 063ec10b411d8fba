"""Where a local run's pieces lie, found from its state folder or its checkpoint folder."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lprl_api.errors import UserError
from lprl_api.field_error import as_text


class NoRun(UserError):
    """Nothing in a folder is a run."""


@dataclass(frozen=True)
class RunFolder:
    """A run as other commands find it."""

    state: Path | None
    """State folder of `lprl run`; None for a checkpoint folder copied from a cluster."""
    run: Path
    """Checkpoint folder: metrics.jsonl, evaluations.jsonl, step-*/, export/."""
    volumes: Path | None

    @property
    def name(self) -> str:
        """Name of the job."""
        return self.run.name

    def local(self, volume_path: str) -> str:
        """Return the local path of VOLUME:PATH."""
        volume, _, path = volume_path.partition(":")
        if self.state is None or not path:
            return volume_path
        link = self.state / "mounts" / volume
        return str((link.resolve() if link.exists() else link) / path)

    def job(self) -> dict[str, Any]:
        """Return the job's document with status, empty where there is none."""
        return read_object(self.state / "job.json") if self.state is not None else {}

    def status(self) -> dict[str, Any]:
        """Return the job's status."""
        return dict(self.job().get("status") or {})

    def rows(self, file: str) -> list[dict[str, Any]]:
        """Return a JSON-lines file of the run folder."""
        return jsonl(self.run / file)

    def last_row(self) -> dict[str, Any]:
        """Return the metrics of the newest step, empty before the first ended."""
        return next(reversed(self.rows("metrics.jsonl")), {})

    def events(self) -> list[dict[str, Any]]:
        """Return phase changes and events."""
        return jsonl(self.state / "events.jsonl") if self.state is not None else []


def run_folder_of(document: Mapping[str, Any], volumes: Path) -> Path:
    """Return the checkpoint folder of a job: the claim's folder, the path, the job's name."""
    spec = document["spec"]
    checkpoint = spec["checkpoint"]
    claim = spec["volumes"][checkpoint["volume"]]["persistentVolumeClaim"]
    folder: Path = volumes / claim / checkpoint.get("path", "checkpoints") / document["metadata"]["name"]
    return folder


def find(text: str) -> RunFolder:
    """Return the run at a state folder (runs/NAME), a checkpoint folder, or named NAME below ./runs.

    Raises:
        UserError: there is none.

    """
    for path in (Path(text), Path("runs") / text):
        if (path / "job.json").exists():
            local = read_object(path / "local.json")
            volumes = Path(local.get("volumes", "volumes"))
            try:
                return RunFolder(path, run_folder_of(read_object(path / "job.json"), volumes), volumes)
            except (KeyError, TypeError):
                raise UserError(f"{path / 'job.json'}: no job in it", BROKEN) from None
        if (path / "metrics.jsonl").exists():
            return RunFolder(None, path, None)
    raise NoRun(f"{text}: no run there", "give the folder `lprl run` made (runs/NAME), or one that holds metrics.jsonl")


def jsonl(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a JSON-lines file; a torn last line (still being written, or its writer was killed) is left out.

    Raises:
        UserError: another line is no JSON object.

    """
    if not path.exists():
        return []
    numbered = [(n, line) for n, line in enumerate(path.read_bytes().split(b"\n"), 1) if line.strip()]
    rows = []
    for at, (number, line) in enumerate(numbered):
        row = _object(line)
        if row is not None:
            rows.append(row)
        elif at < len(numbered) - 1:
            shown = as_text(line.decode(errors="replace"))
            raise UserError(f"{path}:{number}: no JSON object: {shown}", "remove the line, or copy the file anew")
    return rows


BROKEN = "put back what it held, or move the folder away and run the job again; checkpoints and metrics lie below the volumes"


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object of a file, empty where there is no file."""
    if not path.exists():
        return {}
    found = _object(path.read_bytes())
    if found is None:
        raise UserError(f"{path}: broken, no JSON object", BROKEN)
    return found


def _object(text: bytes) -> dict[str, Any] | None:
    """Return a JSON object, None when it is none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):  # ValueError: no JSON, or no UTF-8
        return None
    return found if isinstance(found, dict) else None
