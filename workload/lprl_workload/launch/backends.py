"""Backend names -> implementations, imported only when asked for."""

import os
import random
from collections.abc import Callable
from typing import Any

import numpy
import torch

from lprl_api.catalog.images import HELD
from lprl_api.errors import UserError
from lprl_api.model.formats import WeightFormat
from lprl_api.spec.algorithm import Optimizer
from lprl_api.spec.precision import Precision
from lprl_api.spec.topology import Backends, TrainerLayout
from lprl_api.wire.runconfig import RunConfig
from lprl_workload.config import RankInfo, ResolvedPaths
from lprl_workload.process.loading import loading
from lprl_workload.rollout.engine import RolloutEngine
from lprl_workload.train.actor import TrainActor

ENV_THREADS = "LPRL_TORCH_THREADS"
"""CPU threads of one actor. Fixed, 1 unless set: results of CPU arithmetic depend on it, so it must not follow the machine."""


def held() -> dict[str, tuple[str, ...]]:
    """Return the backends that this environment has, by side: those of the images, and SGLang and Megatron where they are installed."""
    from lprl_workload.rollout.sglang.installed import find_installed
    from lprl_workload.train.megatron.installed import is_installed

    there = {"trainer": ("megatron",) if is_installed() else (), "rollout": ("sglang",) if find_installed() is not None else ()}
    return {side: tuple(dict.fromkeys((*names, *there[side]))) for side, names in HELD.items()}


def check_backends(asked: Backends) -> None:
    """Raise UserError naming each side whose backend this workload does not have."""
    have = held()
    wrong = [f"spec.backends.{side}: got {getattr(asked, side)}" for side in have if getattr(asked, side) not in have[side]]
    if wrong:
        told = "; ".join(f"{side}: {', '.join(names)}" for side, names in have.items())
        raise UserError(f"{', '.join(wrong)}; this workload's image has {told}", "use those, or an image that has the others")


def check_accelerator(asked: Backends, accelerator: str | None) -> None:
    """Raise UserError where a backend does not run on the workers' accelerator (None: an earlier operator did not say it)."""
    from lprl_workload.train.megatron.installed import has_transformer_engine

    if asked.trainer == "megatron" and accelerator not in (None, "cpu") and not has_transformer_engine():
        what = (
            f"spec.backends.trainer: got megatron with topology.accelerator {accelerator}; this workload's image has no TransformerEngine"
        )
        raise UserError(what, "use torch there, accelerator cpu, or an image with transformer-engine beside megatron-core")


def check_fields(asked: Backends, accelerator: str | None, trainer: TrainerLayout, optimizer: Optimizer, precision: Precision) -> None:
    """Raise UserError naming the first field whose value the trainer's backend does not do there, though the planner knows it."""
    if asked.trainer != "megatron":
        return
    on_cpu = accelerator == "cpu"
    undone = (
        ("topology.trainer.context", trainer.context, trainer.context > 1 and not on_cpu, "use 1: sequences are cut over CPU ranks alone"),
        ("topology.trainer.recompute", trainer.recompute, trainer.recompute == "selective", "use none or full"),
        ("topology.trainer.hiddenDropout", trainer.hidden_dropout, bool(trainer.hidden_dropout) and trainer.tensor > 1, "use 0"),
        ("precision.fp8.paramGather", True, precision.fp8.param_gather, "leave it out: FP8 weights are the same bytes without it"),
        (
            "optimizer.precisionAware",
            True,
            optimizer.precision_aware and not optimizer.cpu_offload,
            "leave it out (moments are float32 there), or add cpuOffload",
        ),
    )
    for field, value, wrong, remedy in undone:
        if wrong:
            raise UserError(f"spec.{field}: got {value}; backends.trainer megatron does not do that in this version", remedy)


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


def load_trainer(run: RunConfig) -> None:
    """Import what `make_trainer` needs, in a process that holds nothing yet; raises what that raises."""
    check_backends(run.backends)
    with loading(keep=True):
        trainer_class(run.backends.trainer)


def load_engine(run: RunConfig) -> None:
    """Import what `make_engine` needs, in a process that holds nothing yet; raises what that raises."""
    check_backends(run.backends)
    with loading(keep=True):
        engine_class(run.backends.rollout)


def trainer_class(name: str) -> Callable[[RunConfig, ResolvedPaths, RankInfo], TrainActor]:
    """Return what makes a trainer rank, of a name `held` can have; the contract suite runs on each of them."""
    if name == "torch":
        with loading():
            from lprl_workload.train.actor_torch import TorchTrainActor
        return TorchTrainActor
    if name == "megatron":
        with loading():
            from lprl_workload.train.megatron.actor import MegatronTrainActor
        return MegatronTrainActor
    raise ValueError(f"trainer {name!r}: held by the images, made by nobody")


def make_trainer(run: RunConfig, paths: ResolvedPaths, rank: RankInfo) -> TrainActor:
    """Return one trainer rank; raises UserError for a backend this image does not hold."""
    check_backends(run.backends)
    actor = trainer_class(run.backends.trainer)(run, paths, rank)
    # After building: what training draws must not depend on what else this process drew before.
    _seed(run.algorithm.seed + rank.rank)
    return actor


def engine_class(name: str) -> Callable[..., RolloutEngine]:
    """Return what makes an engine, of a name `held` can have; the contract suite runs on each of them."""
    if name == "torch":
        with loading():
            from lprl_workload.rollout.engine_torch import TorchEngine
        return TorchEngine
    if name == "sglang":
        with loading():
            from lprl_workload.rollout.sglang.engine import SglangEngine
        return SglangEngine
    raise ValueError(f"engine {name!r}: held by the images, made by nobody")


def make_engine(run: RunConfig, paths: ResolvedPaths, fmt: WeightFormat, device: str) -> RolloutEngine:
    """Return one engine that waits for its first push; raises UserError for a backend this image does not hold."""
    check_backends(run.backends)
    name, layout = run.backends.rollout, run.rollout
    return engine_class(name)(
        paths.rollout,
        fmt,
        run.shape,
        device,
        context_length=layout.context_length,
        max_concurrency=layout.max_concurrency,
        memory_fraction=layout.memory_fraction,
        **(_of_server(run) if name == "sglang" else {}),
    )


def _of_server(run: RunConfig) -> dict[str, Any]:
    """Return what an engine that is a server of its own is told besides; raises UserError where it would not fit one node."""
    layout, ranks = run.rollout, run.ranks
    if ranks.slots_per_engine > ranks.slots_per_node:
        found = f"topology.rollout.gpusPerEngine: got {ranks.slots_per_engine}, a node has {ranks.slots_per_node}"
        raise UserError(f"{found}: an SGLang engine lies on one node", f"set it to {ranks.slots_per_node} or less")
    from lprl_workload.rollout.sglang.arguments import ServerOptions

    sleeps, tensor = ranks.placement == "colocated", layout.tensor or layout.gpus_per_engine
    return {"server": ServerOptions(tensor, layout.expert, layout.cuda_graph_batch_sizes, run.algorithm.seed, sleeps)}
