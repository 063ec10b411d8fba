"""Every model type of the zoo (`make test-zoo`): converted to FP8 and INT4 and read back exactly, or refused by name."""

from pathlib import Path

import pytest
from tests.zoo.families import ALL, Case
from tests.zoo.prove import why_not
from tests.zoo.read_back import check_case
from tests.zoo.trained import CANDIDATES

from lprl_api.model.proven import PROVEN


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.model_type)
def test_a_family_is_converted_exactly_or_refused_by_name(case: Case, tmp_path: Path) -> None:
    check_case(case, tmp_path)


@pytest.mark.parametrize("case", CANDIDATES, ids=lambda case: case.model_type)
def test_a_family_is_trained_as_its_class_computes_it_or_refused(case: Case) -> None:
    why = why_not(case)
    assert (why == "") == (case.model_type in PROVEN), why or "python -m tests.zoo.prove > api/lprl_api/model/proven.py"
