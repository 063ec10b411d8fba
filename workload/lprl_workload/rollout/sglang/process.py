"""A server's processes and log, as their owner sees them: started, watched, and killed as one."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lprl_workload.rollout.sglang.guard import kill_group

TAIL = 200
"""Lines of a log that tell why a server ended."""
END_S = 10.0
ENV_LOGS = "LPRL_ENGINE_LOGS"
"""Folder that keeps servers' logs beyond their end; unset: the log of a server that was closed goes with it."""


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port nobody listens at now."""
    with socket.socket() as found:
        found.bind((host, 0))
        return int(found.getsockname()[1])


class Process:
    """One server. Its keys reach it by a file only its user can read: neither arguments nor environments are private."""

    def __init__(
        self, python: Path, arguments: Sequence[str], environment: Mapping[str, str], keys: Mapping[str, str], folder: Path
    ) -> None:
        """Start it.

        Args:
            python: of the environment that holds SGLang.
            arguments: of `sglang.launch_server`, without keys.
            environment: of its processes.
            keys: `api-key` and `admin-api-key`.
            folder: of its own, for its log and, until `hide_keys`, the file of keys.

        """
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.log = folder / "server.log"
        self.log.touch()
        self._keys = folder / "keys.yaml"
        self._keys.touch(mode=0o600)
        self._keys.write_text(json.dumps(dict(keys)))  # JSON is YAML
        self._read = 0
        self._rest = b""
        argv = [str(python), "-m", "sglang.launch_server", "--config", str(self._keys), *arguments]
        self._guard: subprocess.Popen[bytes] = subprocess.Popen(
            [sys.executable, "-m", "lprl_workload.rollout.sglang.guard"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=dict(environment),
            start_new_session=True,  # a signal to its owner's group must not end it before it has ended the server's
        )
        told: dict[str, Any] = {"argv": argv, "log": str(self.log), "secrets": list(keys.values()), "owner": os.getpid()}
        assert self._guard.stdin is not None and self._guard.stdout is not None
        self._guard.stdin.write(json.dumps(told).encode() + b"\n")
        self._guard.stdin.flush()
        self.group = int(self._guard.stdout.readline() or 0)
        """Process group of the server; 0 where it could not even be started."""

    def hide_keys(self) -> None:
        """Remove the file of keys: the server has read it."""
        self._keys.unlink(missing_ok=True)

    @property
    def code(self) -> int | None:
        """What the server ended with (above 128: the signal), None while it lives."""
        return self._guard.poll()

    def wait(self, timeout_s: float) -> int | None:
        """Return `code`, having waited for the end for a while."""
        with suppress(subprocess.TimeoutExpired):
            return self._guard.wait(timeout_s)
        return None

    def new_lines(self) -> list[str]:
        """Return the lines written since the last call."""
        with self.log.open("rb") as file:
            file.seek(self._read)
            block = file.read()
        self._read += len(block)
        *lines, self._rest = (self._rest + block).split(b"\n")
        return [line.decode(errors="replace") for line in lines]

    def tail(self, count: int = TAIL) -> list[str]:
        """Return the last lines."""
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - (count << 9)))
            return file.read().decode(errors="replace").splitlines()[-count:]

    def processor_seconds(self) -> float:
        """Return what the processes of the group have computed so far."""
        return sum(_ticks(entry, self.group) for entry in os.scandir("/proc") if entry.name.isdigit()) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        """Kill all of it, now: a server holds nothing that would have to be written."""
        if self.group:
            kill_group(self.group)
        if self._guard.stdin is not None:
            with suppress(OSError):
                self._guard.stdin.close()
        if self.wait(END_S) is None:
            self._guard.send_signal(signal.SIGKILL)
            self._guard.wait()
        if self._guard.stdout is not None:
            self._guard.stdout.close()
        self.hide_keys()


def _ticks(entry: "os.DirEntry[str]", group: int) -> int:
    with suppress(OSError, ValueError, IndexError):
        fields = Path(entry.path, "stat").read_text().rpartition(")")[2].split()
        if int(fields[2]) == group:
            return int(fields[11]) + int(fields[12])
    return 0


def new_folder() -> Path:
    """Return a folder of its own for a server."""
    kept = os.environ.get(ENV_LOGS)
    if kept:
        Path(kept).mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix="lprl-sglang-", dir=kept or None))


def drop_folder(folder: Path) -> None:
    """Remove a server's folder; its log stays where logs are kept."""
    if not os.environ.get(ENV_LOGS):
        shutil.rmtree(folder, ignore_errors=True)
