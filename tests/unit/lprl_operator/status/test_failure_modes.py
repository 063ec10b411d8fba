"""Every reason is explained to people, and every reason the code uses is a constant."""

import re
from pathlib import Path

import pytest

from lprl_api.names import all_reasons

ROOT = Path(__file__).parents[4]
ROWS = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+?) \| (.+?) \|$", (ROOT / "docs/failure-modes.md").read_text(), re.MULTILINE)


@pytest.mark.parametrize("reason", all_reasons())
def test_every_reason_has_one_row_with_symptom_cause_and_action(reason):
    rows = [r for r in ROWS if r[0] == reason]
    assert len(rows) == 1
    assert all(len(cell) > 4 for cell in rows[0][1:])


def test_no_row_for_a_reason_that_is_gone():
    assert {r[0] for r in ROWS} <= set(all_reasons())


def test_the_operator_spells_no_reason_by_hand():
    literals = {r for r in all_reasons() if r not in ("Running", "Inspected", "Converted", "Suspended", "Succeeded", "ClusterReady")}
    for path in sorted((ROOT / "operator/lprl_operator").rglob("*.py")):
        if "local" in path.as_posix():
            continue
        found = set(re.findall(r"""["'](\w+)["']""", path.read_text())) & literals
        assert not found, f"{path}: use names.Reason for {found}"
