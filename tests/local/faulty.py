"""The driver, one of whose ranks or engines after the other stops, hangs or dies where a test says.

    python faulty.py FOLDER train --config FILE ...

FOLDER holds files NUMBER-HOW-WHERE. The one with the lowest number is in force: whoever comes to WHERE first takes it away, leaves
taken-NUMBER with the time, and does HOW. So faults follow one another without anybody who has to meet a moment of a run.
"""

import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lprl_workload.__main__ import main
from lprl_workload.launch.ray_cluster import RayTrainGroup, TrainActorHost
from lprl_workload.launch.ray_engines import EngineActorHost, RayRolloutGroup

FOLDER = Path(sys.argv[1])


def reached(where: str) -> None:
    """Do what is asked for here, if it is in force: stop (SIGSTOP), sleep (this thread for ever), kill (SIGKILL), pass (nothing)."""
    waiting = sorted(FOLDER.glob("[0-9]*"))
    if not waiting or waiting[0].name.split("-")[2] != where:
        return
    number, how, _ = waiting[0].name.split("-")
    try:
        waiting[0].rename(FOLDER / f"taken-{number}")
    except FileNotFoundError:
        return  # another process was faster
    (FOLDER / f"taken-{number}").write_text(str(time.time()))
    if how == "sleep":
        time.sleep(1e6)
    elif how != "pass":
        os.kill(os.getpid(), {"stop": signal.SIGSTOP, "kill": signal.SIGKILL}[how])


class Watched:
    """A rollout engine that may fail at `load.N`, the N-th bucket of an update."""

    def __init__(self, engine: Any) -> None:
        self._inner, self._loads = engine, 0

    def begin_update(self, version: int, strong: bool = False) -> None:
        self._loads = 0
        self._inner.begin_update(version, strong)

    def load_bucket(self, bucket: Any) -> None:
        self._loads += 1
        reached(f"load.{self._loads}")
        self._inner.load_bucket(bucket)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class Engine(EngineActorHost):
    """Points `generate`, `join` and `load.N`."""

    def set_up(self, *arguments: Any) -> None:
        super().set_up(*arguments)
        self._engine = Watched(self._engine)  # type: ignore[assignment]

    def generate(self, *arguments: Any) -> list[Any]:
        reached("generate")
        return super().generate(*arguments)

    def join_broadcast(self, meetings: Sequence[Any], rank: int) -> None:
        reached("join")
        super().join_broadcast(meetings, rank)


class Rank(TrainActorHost):
    """Points `train.RANK`, `collect.RANK` (between a step's backward pass and its update), `save.RANK` (while its files are written),
    `vote.RANK` (of a push) and `send.RANK.N`, the N-th bucket it sends in a push.
    """

    def set_up(self, *arguments: Any) -> None:
        super().set_up(*arguments)
        masters: Any = self.actor.masters  # type: ignore[attr-defined]
        collect = masters.collect

        def reached_then_collect() -> None:
            reached(f"collect.{self._rank.rank}")
            collect()

        masters.collect = reached_then_collect

    def finish_save(self) -> Any:
        reached(f"save.{self._rank.rank}")
        return super().finish_save()

    def train(self, *arguments: Any) -> Any:
        reached(f"train.{self._rank.rank}")
        return super().train(*arguments)

    def push(self, *arguments: Any) -> Any:
        reached(f"vote.{self._rank.rank}")
        return super().push(*arguments)

    def _transport(self, *arguments: Any) -> Any:
        transport, sent = super()._transport(*arguments), [0]
        send = transport.send

        def counted(bucket: Any, to: Any) -> None:
            sent[0] += 1
            reached(f"send.{self._rank.rank}.{sent[0]}")
            send(bucket, to)

        transport.send = counted  # type: ignore[method-assign]
        return transport


if __name__ == "__main__":
    RayRolloutGroup.host, RayTrainGroup.host = Engine, Rank
    sys.exit(main(sys.argv[2:]))
