"""What needs a real SGLang, in the environment of `make setup-backends`: nothing here is collected elsewhere."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.backends.kept_sites import Kind, Sites
from tests.local.conftest import driver, ray_head, ray_nodes, train_root  # noqa: F401  fixtures

from lprl_workload.rollout.sglang.installed import find_installed

os.environ["LPRL_CONTRACT_ENGINES"] = "sglang"  # read by tests/contract/rollout_bench.py
pytest.register_assert_rewrite(*(f"tests.contract.test_rollout_{part}" for part in ("engine", "abilities", "damage")))
collect_ignore_glob = [] if find_installed() is not None else ["test_*.py"]
HERE = Path(__file__).parent
CONTRACT, SITES = "contract", "sites"
LIMIT_S = 1500
"""Of a test that starts servers on a machine that does much else."""


@pytest.fixture(scope="session")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sites]:
    """Servers that are started with weights, or have weights pushed into them."""
    found = Sites(tmp_path_factory.mktemp("sites"))
    yield found
    found.close()


def servers_of(item: pytest.Item) -> tuple[str, ...]:
    """Name what servers a test uses: those that stand side by side share them. A start costs what twenty tests do."""
    params = item.callspec.params if hasattr(item, "callspec") else {}
    if isinstance(params.get("kind"), Kind):
        return (SITES, str(params["kind"]))
    if item.path.stem in ("test_rollout_contract", "test_server_requests"):
        return (CONTRACT, str(params.get("architecture", "qwen3")), str(params.get("fmt", "bf16")))
    return (item.path.stem,)


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the marks
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run what shares a server one after the other, in one process of pytest-xdist."""
    ours = [item for item in items if item.path.is_relative_to(HERE)]
    items[:] = [item for item in items if item not in ours] + sorted(ours, key=lambda item: (servers_of(item), item.path))
    for item in ours:
        if config.pluginmanager.has_plugin("xdist"):
            item.add_marker(pytest.mark.xdist_group(servers_of(item)[0]))
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(LIMIT_S))


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """End the engines of the contract with the last test that uses them."""
    if servers_of(item)[0] == CONTRACT and (nextitem is None or servers_of(nextitem)[0] != CONTRACT):
        from tests.contract.rollout_bench import SHARED

        SHARED["sglang"].close()
