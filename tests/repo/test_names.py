"""What both sides name stands in lprl_api/names.py once: no environment variable or Ray resource is spelt in two packages."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
SIDES = {"operator": ("operator/lprl_operator", "operator/lprl_cli"), "workload": ("workload/lprl_workload",)}
NAME = re.compile(r"\"((?:LPRL_[A-Z_]+[A-Z])|lprl_(?:trainer|rollout))\"")
OF_ONE_SIDE_EACH = {"LPRL_DEBUG"}
"""Read by the command line and by the workload, each for its own tracebacks; nobody passes it on."""


def spelt(folders: tuple[str, ...]) -> set[str]:
    """Return the names that stand as literals in a side's sources."""
    return {name for folder in folders for file in (ROOT / folder).rglob("*.py") for name in NAME.findall(file.read_text())}


def test_no_name_is_spelt_on_both_sides() -> None:
    assert spelt(SIDES["operator"]) & spelt(SIDES["workload"]) <= OF_ONE_SIDE_EACH


def test_what_the_contract_names_is_spelt_nowhere_else() -> None:
    contract = set(NAME.findall((ROOT / "api/lprl_api/names.py").read_text()))
    assert {"LPRL_ATTEMPT", "LPRL_CALLED_AS", "lprl_trainer"} <= contract
    for side, folders in SIDES.items():
        assert not spelt(folders) & contract, side
