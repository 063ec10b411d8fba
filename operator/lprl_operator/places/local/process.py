"""Containers as supervised process trees."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from lprl_api import names
from lprl_operator.places.local import launcher
from lprl_operator.places.local.files import read_json, write_json

MARKER = names.ENV_LOCAL_CONTAINER
"""STATE_ID:POD_UID:CONTAINER."""
OOM_OR_KILLED = 137


@dataclass(frozen=True)
class Exit:
    """How a container ended."""

    code: int
    reason: str
    """SupervisorLost when this machine's `lprl run` went away, Killed, or empty."""
    finished_at: float


class Container:
    """One container: a folder with `log`, `termination-log`, `launch.json` and, once ended, `exit.json`."""

    def __init__(self, folder: Path, marker: str) -> None:
        self.folder = folder
        self.marker = marker
        self._process: subprocess.Popen[bytes] | None = None
        self._exit: Exit | None = None

    @property
    def termination_log(self) -> Path:
        """File the container writes its termination message to."""
        return self.folder / "termination-log"

    def start(self, command: list[str], env: dict[str, str], cwd: Path, grace_seconds: float) -> None:
        """Start the command; must be called from a thread that lives as long as the container may (the main one)."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.termination_log.unlink(missing_ok=True)
        script = str(Path(launcher.__file__))
        line = [sys.executable, "-I", "-S", script, str(self.folder), str(grace_seconds), str(os.getpid()), "--", *command]
        self._process = subprocess.Popen(
            line, env={**env, MARKER: self.marker}, cwd=cwd, stdin=subprocess.DEVNULL, start_new_session=True, close_fds=True
        )
        write_json(self.folder / "launch.json", {"pid": self._process.pid, "startedAt": time.time(), "command": command})

    @property
    def started_at(self) -> float | None:
        """Unix time of the start, None before."""
        launch = read_json(self.folder / "launch.json")
        return None if launch is None else float(launch["startedAt"])

    def ended(self) -> Exit | None:
        """Return how it ended, None while it runs or before it started."""
        if self._exit is not None:
            return self._exit
        code = self._process.poll() if self._process is not None else None
        found = read_json(self.folder / "exit.json")
        if found is not None:
            self._exit = Exit(int(found["exitCode"]), str(found["reason"]), float(found["finishedAt"]))
            return self._exit
        if code is None:
            return None
        # The launcher itself was killed: its tree is ended here, as the kernel ends a container's.
        kill_marked(self.marker)
        return self.record(OOM_OR_KILLED, "Killed")

    def record(self, code: int, reason: str) -> Exit:
        """Write how the container ended when its launcher could not."""
        self._exit = Exit(code, reason, time.time())
        write_json(self.folder / "exit.json", {"exitCode": code, "reason": reason, "finishedAt": self._exit.finished_at})
        return self._exit

    def terminate(self) -> None:
        """Ask the container to end; its launcher kills what is left after the grace period."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def message(self, limit: int) -> str:
        """Return the termination message, or the last lines of the log when the container wrote none and failed."""
        try:
            return self.termination_log.read_bytes()[:limit].decode("utf-8", "replace")
        except FileNotFoundError:
            return ""

    def log_tail(self, lines: int) -> str:
        """Return the last lines of the container's output."""
        try:
            with (self.folder / "log").open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 65536))
                return "\n".join(file.read().decode("utf-8", "replace").splitlines()[-lines:])
        except FileNotFoundError:
            return ""


def marked_processes(prefix: str) -> list[int]:
    """Return the pids whose container marker starts with `prefix`, this process excepted."""
    wanted = f"{MARKER}={prefix}".encode()
    found: list[int] = []
    for entry in os.listdir("/proc") if sys.platform == "linux" else []:
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            with open(f"/proc/{entry}/environ", "rb") as file:
                if any(item.startswith(wanted) for item in file.read().split(b"\0")):
                    found.append(int(entry))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return found


def kill_marked(prefix: str, deadline_seconds: float = 15.0) -> int:
    """Kill every process of the containers whose marker starts with `prefix`; returns how many were found.

    Raises TimeoutError when one survives the deadline (it would write beside its successor).
    """
    seen: set[int] = set()
    deadline = time.monotonic() + deadline_seconds
    while alive := [pid for pid in marked_processes(prefix) if not _is_zombie(pid)]:
        for pid in alive:
            seen.add(pid)
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes {alive} of an earlier run do not end; end them and try again")
        time.sleep(0.02)
    return len(seen)


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return True


def launch_command(folder: Path) -> list[str]:
    """Return the command line a container was started with."""
    return list(json.loads((folder / "launch.json").read_text())["command"])
