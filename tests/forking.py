"""Processes forked from one that has imported what they need: importing it anew takes each of them longer than its work."""

import multiprocessing
from collections.abc import Sequence
from multiprocessing.context import ForkServerContext

RUN = [
    "lprl_workload.launch.drive",
    "lprl_workload.launch.local",
    "lprl_workload.launch.trained_model",
    "lprl_workload.rollout.engine_torch",
    "lprl_workload.train.actor_torch",
    "lprl_workload.convert.export",
    "transformers.models.qwen3.modeling_qwen3",
]
"""What workload commands in one process import for a Qwen3 model."""
RANKS = [
    "lprl_workload.train.actor_torch",
    "lprl_fixtures.runs",
    "transformers.models.qwen3_moe.modeling_qwen3_moe",
    "tests.contract.pushing",
    "tests.contract.test_sharded_push",
    "tests.contract.test_train_actor",
]
"""What ranks of a push or of a trainer import, and the modules that their functions are in. One list for all tests of tests/contract:
in a process the first one counts, and what it lacks each rank imports for itself."""


def context(preloaded: Sequence[str]) -> ForkServerContext:
    """Return what starts such processes."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(list(preloaded))
    return found
