"""Where everything of one local run lies."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

SHORT_TEMP = Path("/tmp")
"""Ray puts unix sockets under its temporary folder, and a socket's path has at most 107 bytes."""


@dataclass(frozen=True, slots=True)
class Folders:
    """The state folder of one run and the folder its volumes lie in; both absolute."""

    state: Path
    volumes: Path
    secrets: Path

    @classmethod
    def of(cls, state: Path, volumes: Path, secrets: Path | None = None) -> "Folders":
        """Make the paths absolute; Secrets default to the state folder's own."""
        state = state.absolute()
        return cls(state, volumes.absolute(), (secrets or state / "secrets").absolute())

    @property
    def state_id(self) -> str:
        """Identity of the state folder on this machine, the first part of every container's marker."""
        return hashlib.sha256(str(self.state.resolve()).encode()).hexdigest()[:12]

    @property
    def job(self) -> Path:
        """The job's document with its status."""
        return self.state / "job.json"

    @property
    def status(self) -> Path:
        """The status alone, for people and scripts."""
        return self.state / "status.json"

    @property
    def events(self) -> Path:
        """One JSON line per event and phase change."""
        return self.state / "events.jsonl"

    @property
    def objects(self) -> Path:
        """KIND/NAME.json of every child object."""
        return self.state / "objects"

    @property
    def configmaps(self) -> Path:
        """NAME/KEY of every ConfigMap."""
        return self.state / "configmaps"

    @property
    def pods(self) -> Path:
        """One folder per pod."""
        return self.state / "pods"

    @property
    def mounts(self) -> Path:
        """What $LPRL_VOLUMES_ROOT points to: a link per volume name."""
        return self.state / "mounts"

    @property
    def sandboxes(self) -> Path:
        """Processes that stand for sandboxes, as $LPRL_SANDBOX_COMMANDS has them; missing where there are none."""
        return self.state / "sandboxes.json"

    def claim(self, name: str) -> Path:
        """Folder that stands for a PersistentVolumeClaim; made when missing, as a claim is when it binds."""
        folder = self.volumes / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def ray_temp(self, uid: str) -> Path:
        """Temporary folder of a Ray cluster."""
        return SHORT_TEMP / f"lprl-{uid}"
