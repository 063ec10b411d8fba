"""What a reward is shown of an episode: the last turn the policy drew as the response, and of several turns all of them."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from lprl_workload.data import Prompt
from lprl_workload.episode import Episode

Decode = Callable[[Sequence[int]], str]
TURNS = "turns"
"""Key of a reward's metadata: [{"role": "assistant" | "tool" | "user" | ..., "text": ...}, ...] from the first turn on."""


def judged(prompt: Prompt, episode: Episode, decode: Decode, several: bool) -> tuple[Prompt, str]:
    """Return what the reward is given: the prompt, with the episode's turns among its metadata where `several`, and the response."""
    response = decode(episode.response_ids.tolist())
    if not several:
        return prompt, response
    return replace(prompt, metadata={**prompt.metadata, TURNS: turns_of(episode, decode)}), response


def turns_of(episode: Episode, decode: Decode) -> list[dict[str, str]]:
    """Return the turns behind the prompt: what the policy drew decoded, what the world said as it was said."""
    said, found = iter(episode.said), list[dict[str, str]]()
    for turn in episode.turns[1:]:
        if turn.drawn:
            found.append({"role": "assistant", "text": decode(turn.ids.tolist())})
        else:
            found += [{"role": role, "text": text} for role, text in next(said, ())]
    return found
