"""What needs a real Megatron, in the environment of `make setup-megatron`: nothing here is collected elsewhere."""

import os
from pathlib import Path

import pytest
from tests.local.conftest import driver, ray_head, ray_nodes, train_root  # noqa: F401  fixtures

from lprl_workload.train.megatron.installed import is_installed

if is_installed():
    os.environ["LPRL_CONTRACT_TRAINER"] = "megatron"  # read by tests/contract/trainer_bench.py
    pytest.register_assert_rewrite(*(f"tests.contract.test_{name}" for name in ("train_actor", "trainer_sleep", "trainer_state")))
collect_ignore_glob = [] if is_installed() else ["test_*.py"]
HERE = Path(__file__).parent
LIMIT_S = 900
"""Of a test: each of its waits has a limit of its own."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give every test of this folder a limit."""
    for item in items:
        if item.path.is_relative_to(HERE) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(LIMIT_S))
