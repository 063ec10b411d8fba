"""docs/families.md is what its tables say; how to make it anew stands in it."""

from pathlib import Path

from tests.zoo.families import ALL
from tests.zoo.table import TABLES, page

from lprl_api.model.hf_config import FAMILIES

PAGE = Path(__file__).parents[2] / "docs" / "families.md"


def test_the_page_of_families_is_the_tables() -> None:
    assert PAGE.read_text() == page()
    assert set(TABLES) == set(FAMILIES) and not {case.model_type for case in ALL} & set(FAMILIES)
