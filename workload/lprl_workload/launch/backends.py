"""Backend names -> implementations, imported only when asked for."""

import os
import random
from collections.abc import Callable

import numpy
import torch

from lprl_api.catalog.images import HELD
from lprl_api.errors import UserError
from lprl_api.model.formats import WeightFormat
from lprl_api.spec.topology import Backends
from lprl_api.wire.runconfig import RunConfig
from lprl_workload.config import RankInfo, ResolvedPaths
from lprl_workload.rollout.engine import RolloutEngine
from lprl_workload.train.actor import TrainActor

ENV_THREADS = "LPRL_TORCH_THREADS"
"""CPU threads of one actor. Fixed, 1 unless set: results of CPU arithmetic depend on it, so it must not follow the machine."""


def check_backends(asked: Backends) -> None:
    """Raise UserError naming each side whose backend this workload does not have."""
    wrong = [f"spec.backends.{side}: got {getattr(asked, side)}" for side in HELD if getattr(asked, side) not in HELD[side]]
    if wrong:
        have = "; ".join(f"{side}: {', '.join(names)}" for side, names in HELD.items())
        raise UserError(f"{', '.join(wrong)}; this workload's image has {have}", "use those, or an image that has the others")


def threads() -> int:
    """Return the CPU threads of one process of the run."""
    return int(os.environ.get(ENV_THREADS, "1"))


def set_up_process() -> None:
    """Make this process's arithmetic repeatable: a fixed thread count, deterministic algorithms where torch has them."""
    torch.set_num_threads(threads())
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)


def _seed(seed: int) -> None:
    random.seed(seed)
    numpy.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def make_trainer(run: RunConfig, paths: ResolvedPaths, rank: RankInfo) -> TrainActor:
    """Return one trainer rank; raises UserError for a backend this image does not hold."""
    check_backends(run.backends)
    from lprl_workload.train.actor_torch import TorchTrainActor

    actor = TorchTrainActor(run, paths, rank)
    # After building: what training draws must not depend on what else this process drew before.
    _seed(run.algorithm.seed + rank.rank)
    return actor


def engine_class(name: str) -> Callable[..., RolloutEngine]:
    """Return what makes an engine, of a name in catalog/images.py's HELD; the contract suite runs on each of them."""
    if name == "torch":
        from lprl_workload.rollout.engine_torch import TorchEngine

        return TorchEngine
    raise ValueError(f"engine {name!r}: held by the images, made by nobody")


def make_engine(run: RunConfig, paths: ResolvedPaths, fmt: WeightFormat, device: str) -> RolloutEngine:
    """Return one engine that waits for its first push; raises UserError for a backend this image does not hold."""
    check_backends(run.backends)
    return engine_class(run.backends.rollout)(
        paths.rollout,
        fmt,
        run.shape,
        device,
        context_length=run.rollout.context_length,
        max_concurrency=run.rollout.max_concurrency,
        memory_fraction=run.rollout.memory_fraction,
    )
