"""Sandboxes of `lprl run --sandbox`: a process for each, on a loopback port. They have the same limits, and no isolation at all."""

import asyncio
import os
import shlex
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lprl_api import names
from lprl_api.spec.episode import Tool
from lprl_api.text import last_words
from lprl_workload.agent.sandbox_clerk import SandboxError

KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "PYTHONPATH", "VIRTUAL_ENV", names.ENV_LOCAL_CONTAINER)
"""Variables a process gets; the last is how `lprl run` finds what is left of a container. No secrets of the job."""
POLL_S = 0.02


@dataclass(slots=True)
class _Running:
    process: asyncio.subprocess.Process
    folder: Path
    port: int


class Processes:
    """Source of processes; ends each one's whole process group."""

    def __init__(self, commands: Mapping[str, Mapping[str, str]]) -> None:
        """`commands`: by warm pool, `command` with {port} in it, and `folder` in which it runs."""
        self._commands = commands
        self._running: dict[str, _Running] = {}
        self._ports: set[int] = set()

    async def open(self, name: str, tool: Tool) -> str:
        """See Source."""
        assert tool.sandbox is not None
        told = self._commands[tool.sandbox.warm_pool]
        port, folder = self._free_port(), Path(tempfile.mkdtemp(prefix="lprl-sandbox-"))
        words = [word.replace("{port}", str(port)) for word in shlex.split(told["command"])]
        if words[0] in ("python", "python3"):
            words[0] = sys.executable
        env = {name: os.environ[name] for name in KEPT if name in os.environ} | {"TMPDIR": str(folder), "PORT": str(port)}
        try:
            with open(folder / "log", "wb") as out:
                process = await asyncio.create_subprocess_exec(
                    *words, cwd=told["folder"], env=env, stdin=asyncio.subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
                )
        except OSError as error:
            self._ports.discard(port)
            shutil.rmtree(folder, ignore_errors=True)
            raise SandboxError(f"{words[0]} cannot be started: {error}", again=False) from error
        self._running[name] = _Running(process, folder, port)
        await self._answers(tool, port, process, folder)
        return f"http://127.0.0.1:{port}"

    async def _answers(self, tool: Tool, port: int, process: asyncio.subprocess.Process, folder: Path) -> None:
        assert tool.sandbox is not None
        limit_s, pool = tool.sandbox.claim_seconds, tool.sandbox.warm_pool
        try:
            async with asyncio.timeout(limit_s):
                while process.returncode is None:
                    with suppress(OSError):
                        _, writer = await asyncio.open_connection("127.0.0.1", port)
                        writer.close()
                        return
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise SandboxError(f"the process for pool {pool} did not listen at port {port} within {limit_s:g} s{_said(folder)}") from None
        raise SandboxError(f"the process for pool {pool} ended with {process.returncode} before it listened{_said(folder)}")

    async def close(self, name: str) -> None:
        """See Source."""
        running = self._running.pop(name, None)
        if running is None:
            return
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(running.process.pid, signal.SIGKILL)
        await running.process.wait()
        self._ports.discard(running.port)
        shutil.rmtree(running.folder, ignore_errors=True)

    async def clear(self) -> None:
        """See Source: processes end with the driver's container."""

    async def shut(self) -> None:
        """End what is left."""
        for name in list(self._running):
            await self.close(name)

    def _free_port(self) -> int:
        """Return a port nobody has, and no process that is about to listen: it would be taken for another one's sandbox."""
        while True:
            with socket.socket() as found:
                found.bind(("127.0.0.1", 0))
                port = int(found.getsockname()[1])
            if port not in self._ports:
                self._ports.add(port)
                return port


def _said(folder: Path) -> str:
    words = last_words((folder / "log").read_text(errors="replace"))
    return f": {words}" if words else ""
