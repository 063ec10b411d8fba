"""What an episode may have at most, as the loss counts it."""

import pytest

from lprl_api.derived.effective import most_drawn
from lprl_api.spec.episode import Episode

TOOLS = {"type": "tools", "tools": [{"name": "t", "function": "m:f"}], "maxTurns": 4}


@pytest.mark.parametrize(
    ("episode", "context", "tokens"),
    [
        ({}, 4096, 100),
        ({}, 50, 100),  # of one turn as ever
        (TOOLS, 4096, 400),
        (TOOLS | {"maxEpisodeTokens": 250}, 4096, 250),
        (TOOLS | {"maxEpisodeTokens": 3000}, 4096, 400),  # tools may say more than the policy draws
        (TOOLS, 300, 300),
    ],
)
def test_the_policy_draws_at_most_its_turns_within_the_episode_and_the_context(
    episode: dict[str, object], context: int, tokens: int
) -> None:
    assert most_drawn(Episode.model_validate(episode), 100, context) == tokens
