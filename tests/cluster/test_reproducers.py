"""What users of a real cluster met (reproducers.py), each ending as it should."""

from concurrent.futures import Future

import pytest
from tests.cluster.reproducers import SCENARIOS


@pytest.mark.parametrize("name", SCENARIOS)
def test_what_users_met_ends_as_it_should(name: str, beside: dict[str, Future[None]]) -> None:
    beside[name].result()
