"""The API server's clock is used when ours differs from it by more than a header's resolution."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from lprl_operator.kube.clock import ServerClock


@pytest.mark.parametrize(("ahead_s", "taken_s"), [(0, 0), (3, 0), (-420, -420), (420, 420)])
def test_a_large_difference_is_taken_over(ahead_s: int, taken_s: int) -> None:
    clock = ServerClock()
    clock.heard(format_datetime(datetime.now(UTC) + timedelta(seconds=ahead_s), usegmt=True))
    assert abs((clock.now() - datetime.now(UTC)).total_seconds() - taken_s) < 2.5


@pytest.mark.parametrize("header", [None, "", "yesterday"])
def test_what_cannot_be_read_changes_nothing(header: str | None) -> None:
    clock = ServerClock()
    clock.heard(format_datetime(datetime.now(UTC) + timedelta(minutes=7), usegmt=True))
    clock.heard(header)
    assert (clock.now() - datetime.now(UTC)).total_seconds() > 400
