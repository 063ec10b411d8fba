"""Real ranks of the torch trainer push: FSDP2's rows and replicas, two and four gloo ranks, engines of one and two ranks, every format.

And the push after one that failed on a rank in its middle is right, bit for bit: ranks out of step would give rows of other layers.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests import forking

from lprl_api.model.formats import Bf16, Fp8Block, Fp8Channel, Fp8Tensor, Int4Group, WeightFormat
from lprl_api.spec.precision import Scope
from lprl_api.wire.runconfig import RunConfig
from lprl_fixtures.generate import ModelOptions, generate_model
from lprl_fixtures.pushes import Keeper, converted
from lprl_fixtures.runs import run_config
from lprl_operator.places.local.ports import free_port
from lprl_workload.checkpoint.hf_folder import write_trained
from lprl_workload.config import RankInfo, ResolvedPaths
from lprl_workload.data import Bucket
from lprl_workload.episode import TrainSample
from lprl_workload.folder.config import read_shape
from lprl_workload.hf.chosen import chosen_of
from lprl_workload.hf.folder import read_folder
from lprl_workload.sync.buckets import as_bytes
from lprl_workload.sync.manifest import ServedAs
from lprl_workload.sync.peers import AbandonedError
from lprl_workload.sync.routes import EngineLayout, Target, route
from lprl_workload.sync.session import Session, push
from lprl_workload.sync.transport_disk import DiskTransport, receive_from
from lprl_workload.train.actor_torch import TorchTrainActor

FORMATS: list[WeightFormat] = [
    Bf16(),
    Fp8Block(),
    Fp8Block(scale_format="ue8m0"),
    Fp8Channel(),
    Fp8Tensor(),
    Int4Group(group_size=32, scope=Scope.ALL_LINEAR),
    Int4Group(group_size=64, scope=Scope.ALL_LINEAR, exclude_modules=("*.down_proj",)),  # of 96 inputs each
]
EXPERTS = 4
LAYOUTS = [EngineLayout(0), EngineLayout(1, 2, experts=EXPERTS)]
TARGETS = [Target(0), Target(1, 0), Target(1, 1)]
BUCKET_BYTES = 1 << 15
FAILING = Fp8Block()


class Spoilt(DiskTransport):
    """Fails at its `at`-th bucket."""

    at = -1

    def send(self, bucket: Bucket, to: Any) -> None:
        if self._written == self.at:
            raise OSError(28, "No space left on device")
        super().send(bucket, to)


class Rank:
    """One rank's trainer and what it pushes, in folders of `root`."""

    def __init__(self, actor: Any, run: RunConfig, rank: int, root: Path, model: Path) -> None:
        self.actor, self.run, self.rank, self.root, self.model = actor, run, rank, root, model

    def push(self, fmt: WeightFormat, folder: str, version: int, at: int = -1) -> None:
        source = self.actor.source()
        routes = route(source.manifest(), LAYOUTS, BUCKET_BYTES, ServedAs(fmt, chosen_of(self.model, fmt, self.run.shape)))
        transport = Spoilt(self.root / folder, self.rank, routes, version, lambda v: lambda: None)
        transport.at = at
        push(Session(routes, transport, self.actor.peers()), source, version, strong=True)

    def fail(self, on: int, at: int, version: int) -> bool:
        """Push with a fault on rank `on` at its `at`-th bucket; returns whether it came to that, having seen who raised what."""
        try:
            self.push(FAILING, "failed", version, at if self.rank == on else -1)
        except OSError:
            assert self.rank == on
            return True
        except AbandonedError:
            assert self.rank != on
            return True
        return False


def stepped(rank: int, world: int, root: Path, port: int, shard: bool) -> Rank:
    """Return a rank of the torch trainer after a real optimizer step."""
    run = run_config(root, {"ranks": {"trainer_ranks": world, "data_parallel": world}, "algorithm": {"steps": 4}})
    model = root / "all" / "model"
    paths = ResolvedPaths(model, model, model, root / "run", model, None, None)
    actor = TorchTrainActor(run, paths, RankInfo(rank, world, "cpu", "127.0.0.1", port), shard=shard)
    values = [np.asarray(row, np.float32) for row in ((-3.0, -3.0), (1.0, -1.0))]
    sample = TrainSample(np.asarray((3, 4, 5, 6, 7), np.int32), np.arange(5) > 2, *values)
    actor.train([[sample]], world, 2 * world)
    return Rank(actor, run, rank, root, root / "all" / "model")


def worker(rank: int, world: int, root: str, port: int, shard: bool) -> None:
    torch.set_num_threads(1)
    mine = stepped(rank, world, Path(root), port, shard)
    failed = sum(mine.fail(on, at, 10 * at + on) for at in range(6) for on in range(world))
    assert failed >= world, f"rank {rank}: only {failed} pushes failed"
    mine.push(FAILING, "failed", 99)
    for number, fmt in enumerate(FORMATS):
        mine.push(fmt, f"f{number}", 7)
    write_trained(mine.root / "export", mine.actor.source(), mine.actor.peers(), mine.root / "all" / "model", mine.run.shape)
    torch.distributed.barrier()
    # Everything is on disk. Left to the interpreter, gloo's threads abort its end now and then (torch 2.13, a busy machine).
    os._exit(0)


def offline(folder: Path, fmt: WeightFormat) -> dict[str, torch.Tensor]:
    """The offline conversion of an export."""
    return converted(dict(read_folder(folder)), ServedAs(fmt, chosen_of(folder, fmt, read_shape(folder))))


def assert_served(root: Path, folder: str, version: int, want: dict[str, torch.Tensor]) -> None:
    for target in TARGETS:
        keeper = Keeper()
        receive_from(root / folder, keeper, version, target)
        layout = LAYOUTS[target.engine]
        assert keeper.served is not None
        assert keeper.served.keys() == {n for n, t in want.items() if layout.part(target.rank, n, tuple(t.shape)) is not None}
        for name, found in keeper.served.items():
            assert torch.equal(as_bytes(found), as_bytes(want[name])), (folder, target, name)


@pytest.mark.slow
@pytest.mark.parametrize(("world", "shard"), [(2, True), (4, True), (2, False)], ids=["2-sharded", "4-sharded", "2-replicas"])
def test_ranks_serve_the_offline_conversion_of_their_export(tmp_path: Path, world: int, shard: bool) -> None:
    generate_model(tmp_path / "all" / "model", ModelOptions(architecture="qwen3-moe", size="tiny", seed=1))
    (tmp_path / "export").mkdir()
    context, port = forking.context(forking.RANKS), free_port()
    ranks = [context.Process(target=worker, args=(r, world, str(tmp_path), port, shard)) for r in range(world)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(timeout=240)
    assert [process.exitcode for process in ranks] == [0] * world
    before, after = dict(read_folder(tmp_path / "all" / "model")), dict(read_folder(tmp_path / "export"))
    assert any(not torch.equal(before[name], tensor) for name, tensor in after.items()), "the step changed nothing"
    for number, fmt in enumerate(FORMATS):
        assert_served(tmp_path, f"f{number}", 7, offline(tmp_path / "export", fmt))
    assert_served(tmp_path, "failed", 99, offline(tmp_path / "export", FAILING))
