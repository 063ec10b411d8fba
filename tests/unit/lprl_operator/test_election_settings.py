"""Two leaders at once, by configuration."""

import pytest

from lprl_api.errors import UserError
from lprl_operator.settings import OperatorSettings, parse


@pytest.mark.parametrize(
    ("wished", "words"),
    [
        ({"leaseDurationSeconds": 10, "renewDeadlineSeconds": 10}, "renewDeadlineSeconds 10 needs to be less than leaseDurationSeconds 10"),
        ({"leaseDurationSeconds": 8}, "renewDeadlineSeconds 10 needs to be less than leaseDurationSeconds 8"),
        ({"retryPeriodSeconds": 10}, "retryPeriodSeconds 10 needs to be less than renewDeadlineSeconds 10"),
    ],
)
def test_a_leader_that_would_act_after_it_was_replaced_is_refused(wished: dict[str, int], words: str) -> None:
    with pytest.raises(UserError, match=words):
        parse({"leaderElection": wished}, "operator.yaml")


def test_the_defaults_and_a_faster_election_are_accepted() -> None:
    assert OperatorSettings().leader_election.renew_deadline_seconds == 10
    fast = {"leaseDurationSeconds": 3, "renewDeadlineSeconds": 2, "retryPeriodSeconds": 1}
    assert parse({"leaderElection": fast}, "operator.yaml").leader_election.lease_duration_seconds == 3
