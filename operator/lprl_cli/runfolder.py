"""Where a local run's pieces lie, found from its state folder or its checkpoint folder."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lprl_api.errors import UserError


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
        return _json(self.state / "job.json") if self.state is not None else {}

    def status(self) -> dict[str, Any]:
        """Return the job's status."""
        return dict(self.job().get("status") or {})

    def rows(self, file: str) -> list[dict[str, Any]]:
        """Return a JSON-lines file of the run folder."""
        return jsonl(self.run / file)

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
            local = _json(path / "local.json")
            volumes = Path(local.get("volumes", "volumes"))
            return RunFolder(path, run_folder_of(_json(path / "job.json"), volumes), volumes)
        if (path / "metrics.jsonl").exists():
            return RunFolder(None, path, None)
    raise UserError(f"{text}: no run there", "give the folder `lprl run` made (runs/NAME), or one that holds metrics.jsonl")


def jsonl(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a JSON-lines file; a last line still being written is left out."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").split("\n")[:-1]:
        if line:
            rows.append(json.loads(line))
    return rows


def _json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}
