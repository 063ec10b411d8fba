"""Episodes as arrays: the worked example, what constructors refuse, and what the driver holds."""

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lprl_workload.data import Completion, GenerationRequest
from lprl_workload.episode import (
    NOTHING,
    SHORT,
    BatchRef,
    Episode,
    EpisodeRef,
    Span,
    TrainSample,
    Turn,
    bare_sample,
    described,
    drawn,
    token_ids,
    world,
)

LAST = Turn(token_ids([2, 1]), np.array([-0.1, -0.2], np.float32), True, (Span(4, 0, 1), Span(5, 1, 2)))
EPISODE = Episode(17, 0, 1, (world([5, 9]), drawn([7, 3], [-0.5, -1.25], 4), world([8]), LAST), "stop")


def test_the_worked_example() -> None:
    assert EPISODE.ids.tolist() == [5, 9, 7, 3, 8, 2, 1]
    assert EPISODE.mask.tolist() == [False, False, True, True, False, True, True]
    assert EPISODE.logprobs.tolist() == pytest.approx([-0.5, -1.25, -0.1, -0.2])
    assert EPISODE.answer_ids.tolist() == [7, 3, 8, 2, 1]
    assert EPISODE.tokens == (2, 7, 4) and EPISODE.versions == (4, 5)
    assert [a.dtype.name for a in (EPISODE.ids, EPISODE.mask, EPISODE.logprobs)] == ["int32", "bool", "float32"]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 4)), max_size=6))
def test_whatever_the_turns_values_of_drawn_tokens_line_up(turns: list[tuple[bool, int]]) -> None:
    made = [drawn(range(n), [0.0] * n, 3) if speaks else world(range(n)) for speaks, n in turns]
    episode = Episode(0, 0, 0, (world([1]), *made), "stop")
    sample, view = bare_sample(episode), described(episode)
    assert len(sample.ids) == len(sample.mask) == view.tokens == 1 + sum(n for _, n in turns)
    assert sample.drawn_tokens == len(sample.rollout_logprobs) == view.drawn_tokens == sum(n for speaks, n in turns if speaks)
    assert (view.prompt_tokens, len(episode.answer_ids)) == (1, view.tokens - 1)


def test_a_single_turn_is_an_episode_of_two() -> None:
    done = Completion(token_ids([7, 2]), np.zeros(2, np.float32), "length", (Span(6, 0, 2),))
    episode = done.episode(GenerationRequest(token_ids([4, 5]), 9, 17, 3, 1))
    assert [turn.drawn for turn in episode.turns] == [False, True] and (episode.prompt, episode.group, episode.sample) == (17, 3, 1)
    assert described(episode).oldest == described(episode).newest == 6


ROW = np.zeros(2, np.float32)


def turn(ids: Any, logprobs: Any = NOTHING, speaks: bool = True, versions: tuple[Span, ...] = ()) -> Turn:
    return Turn(ids, logprobs, speaks, versions)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        pytest.param(lambda: turn([1, 2]), r"turn.ids: got list, needs int32 \[T\]", id="a-list"),
        pytest.param(lambda: turn(np.zeros(2, np.int64)), r"turn.ids: got int64 \[2\], needs int32 \[T\]", id="wide-ids"),
        pytest.param(lambda: turn(token_ids([[1]])), r"token ids: got int32 \[1, 1\], needs int32 \[T\]", id="a-matrix"),
        pytest.param(lambda: turn(token_ids([1])), r"turn.logprobs: got float32 \[0\], needs float32 \[1\]", id="drawn-without"),
        pytest.param(
            lambda: turn(token_ids([1, 2]), ROW, False), r"turn.logprobs: got float32 \[2\], needs float32 \[0\]", id="the-world-with"
        ),
        pytest.param(lambda: turn(token_ids([1, 2]), ROW), "turn.versions: got .*, needs spans that tile 2 drawn", id="no-version"),
        pytest.param(lambda: turn(token_ids([1, 2]), ROW, True, (Span(1, 0, 1),)), "turn.versions", id="a-token-without-version"),
        pytest.param(lambda: turn(token_ids([1, 2]), ROW, True, (Span(1, 0, 1), Span(2, 0, 2))), "turn.versions", id="overlap"),
        pytest.param(lambda: Episode(0, 0, 0, (), "stop"), "the first must be the prompt", id="no-prompt"),
        pytest.param(lambda: Episode(0, 0, 0, (world([]),), "stop"), "at least one token", id="empty-prompt"),
        pytest.param(lambda: TrainSample(token_ids([1]), np.array([1]), NOTHING, NOTHING), r"sample.mask: got int64", id="mask-of-numbers"),
        pytest.param(
            lambda: TrainSample(token_ids([1]), np.array([True]), np.zeros(1, np.float32), np.zeros(1, np.float32)),
            "at least one prompt token",
            id="nothing-before-the-first",
        ),
        pytest.param(
            lambda: TrainSample(token_ids([1, 2]), np.array([False, True]), NOTHING, NOTHING),
            r"sample.rollout_logprobs: got float32 \[0\], needs float32 \[1\]",
            id="too-few-values",
        ),
        pytest.param(lambda: BatchRef((described(EPISODE),), old=()), "batch.old: got 0 rows", id="rows-of-another-batch"),
    ],
)
def test_shapes_are_checked_where_arrays_enter(make: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()


def test_the_driver_holds_numbers_only() -> None:
    view = described(EPISODE)
    assert not any(isinstance(getattr(view, name), np.ndarray) for name in EpisodeRef.__slots__)
    batch = BatchRef((view, view))
    assert batch.lengths.tolist() == [7, 7] and batch.drawn.tolist() == [4, 4]


@given(st.integers(0, 3), st.sampled_from([1, SHORT, SHORT + 1]))
def test_an_episode_crosses_processes_as_it_was(version: int, tokens: int) -> None:
    turn = drawn(range(tokens), [-0.5] * tokens, version)
    episode = Episode(7, 1, 2, (world([3]), turn), "stop", 0.5, calls={"ok": 2}, said=((("tool", "4"),),))
    found = pickle.loads(pickle.dumps(episode, protocol=5))
    assert [(t.ids.tolist(), t.logprobs.tolist(), t.drawn, t.versions) for t in found.turns] == [
        (t.ids.tolist(), t.logprobs.tolist(), t.drawn, t.versions) for t in episode.turns
    ]
    assert all(getattr(found, name) == getattr(episode, name) for name in Episode.__slots__ if name != "turns")


def test_nor_does_a_turn_arrive_that_could_not_be_made() -> None:
    turn = drawn([1, 2], [-0.5, -0.5], 0)
    object.__setattr__(turn, "logprobs", turn.logprobs[:1])
    with pytest.raises(ValueError, match=r"turn\.logprobs: got float32 \[1\], needs float32 \[2\]"):
        pickle.loads(pickle.dumps(turn))
