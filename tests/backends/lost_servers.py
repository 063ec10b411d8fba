"""The driver, whose SGLang server dies wherever a test says.

    python lost_servers.py FOLDER train --config FILE ...

FOLDER holds files NUMBER-WHERE. The one with the lowest number is in force: when the run comes to WHERE it is renamed taken-NUMBER, and
the server's processes are killed; its engine's process lives. WHERE is `draw` (a response has begun to come), `load.N` (before the N-th
bucket of a push) or `asleep` (trainer and engine take turns, as on the GPUs of a colocated job: on a CPU nothing sleeps otherwise).
"""

import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

from lprl_workload.__main__ import main
from lprl_workload.launch import build
from lprl_workload.launch.ray_engines import EngineActorHost, RayRolloutGroup
from lprl_workload.rl import serving

FOLDER = Path(sys.argv[1])


class Watched:
    """A rollout engine whose server may die."""

    def __init__(self, engine: Any) -> None:
        self._inner, self._loads = engine, 0

    def _reached(self, where: str) -> None:
        waiting = sorted(FOLDER.glob("[0-9]*"))
        if waiting and waiting[0].name.partition("-")[2] == where:
            waiting[0].rename(FOLDER / f"taken-{waiting[0].name}")
            os.killpg(self._inner._server.process.group, signal.SIGKILL)

    async def generate(self, request: Any) -> AsyncIterator[Any]:
        async with aclosing(self._inner.generate(request)) as chunks:
            async for chunk in chunks:
                if chunk.finish is None:
                    self._reached("draw")
                yield chunk

    def begin_update(self, version: int, strong: bool = False) -> None:
        self._loads = 0
        self._inner.begin_update(version, strong)

    def load_bucket(self, bucket: Any) -> None:
        self._loads += 1
        self._reached(f"load.{self._loads}")
        self._inner.load_bucket(bucket)

    async def sleep(self, parts: Any) -> None:
        await self._inner.sleep(parts)
        self._reached("asleep")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class Host(EngineActorHost):
    """An engine's process."""

    def set_up(self, *arguments: Any) -> None:
        super().set_up(*arguments)
        self._engine = Watched(self._engine)


if __name__ == "__main__":
    RayRolloutGroup.host = Host
    build.shares_devices = serving.shares_devices = lambda run: True
    sys.exit(main(sys.argv[2:]))
