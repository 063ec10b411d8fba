"""What needs a real SGLang, in the environment of `make setup-backends`: nothing here is collected elsewhere."""

import os

import pytest

from lprl_workload.rollout.sglang.installed import find_installed

os.environ["LPRL_CONTRACT_ENGINES"] = "sglang"  # read by tests/contract/rollout_bench.py
pytest.register_assert_rewrite(*(f"tests.contract.test_rollout_{part}" for part in ("engine", "abilities", "damage")))
collect_ignore_glob = [] if find_installed() is not None else ["test_*.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run what shares a server one after the other: a start takes half a minute."""

    def server(item: pytest.Item) -> tuple[str, ...]:
        if "test_rollout_contract" not in item.nodeid:
            return ()
        params = item.callspec.params if hasattr(item, "callspec") else {}
        return (str(params.get("architecture", "qwen3")), str(params.get("fmt", "bf16")))

    items.sort(key=lambda item: (item.path, server(item)))
