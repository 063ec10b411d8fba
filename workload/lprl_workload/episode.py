"""Episodes as arrays: what a prompt became, token for token, and what a trainer rank makes of it.

L = all tokens of an episode, R = those the policy drew. Worked example, a prompt of two tokens, a call of a tool, its answer of
one token, and a last word; the weights changed while the last turn was drawn:

    Episode(prompt=17, group=0, sample=1, finish="stop", turns=(
        world([5, 9]),                                              the prompt
        drawn([7, 3], logprobs=[-0.5, -1.25], version=4),           the policy asks the tool
        world([8]),                                                 the tool's answer: never trained on
        Turn([2, 1], [-0.1, -0.2], True, (Span(4, 0, 1), Span(5, 1, 2)))))
    ids   5 9 7 3 8 2 1     L = 7
    mask  0 0 1 1 0 1 1     R = 4; log-probabilities, advantages and losses exist for these only: [R], in order

What the world put in is no row of [R] at all, so its gradient, and its part in every sum and denominator, is exactly nothing.
Token ids are int32, log-probabilities float32, masks bool; every constructor checks dtypes and shapes (ValueError).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lprl_api.text import one_line, shortened

Int32 = NDArray[np.int32]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]
Finish = Literal["stop", "length", "abort", "turn-limit", "failed"]  # failed: a tool or an environment gave up, not the policy
WAITED = "waited_ms"  # beside the counts of an episode's calls: how long they waited for a sandbox, where it asked for one
FAILURE_CHARACTERS = 300  # of why an episode failed, as the driver holds it
NOTHING: Float32 = np.zeros(0, np.float32)
SHORT = 1024  # tokens of a turn that is pickled as plain bytes: arrays cost ten times as much


def token_ids(values: ArrayLike) -> Int32:
    """Return token ids as int32 [T]; an int32 array is taken as it is."""
    found: Int32 = _vector("token ids", np.asarray(values, np.int32), np.int32)
    return found


def _vector(what: str, values: Any, dtype: type, length: int | None = None) -> Any:
    """Return `values`; raises ValueError unless they are [length] (any length when None) of `dtype`."""
    shape = "[T]" if length is None else f"[{length}]"
    if not isinstance(values, np.ndarray) or values.ndim != 1 or values.dtype != dtype or (length is not None and len(values) != length):
        found = f"{values.dtype} {list(values.shape)}" if isinstance(values, np.ndarray) else type(values).__name__
        raise ValueError(f"{what}: got {found}, needs {np.dtype(dtype)} {shape}")
    return values


@dataclass(frozen=True, slots=True)
class Span:
    """Tokens [first, last) of a turn, drawn with weights `version`."""

    version: int
    first: int
    last: int

    def __reduce__(self) -> Any:  # dataclasses' own way with slots, through `fields`, takes three times the processor time
        return Span, (self.version, self.first, self.last)


@dataclass(frozen=True, slots=True, eq=False)
class Turn:
    """Tokens drawn by the policy, or put in by the world (prompt, tool output, user, environment)."""

    ids: Int32
    """[T]."""
    logprobs: Float32
    """[T] under the weights that drew them, at the sampling temperature, before top-p and top-k; [0] where the world speaks."""
    drawn: bool
    versions: tuple[Span, ...] = ()
    """They tile [0, T) in order where the policy speaks; none where the world does."""

    def __post_init__(self) -> None:
        _vector("turn.ids", self.ids, np.int32)
        _vector("turn.logprobs", self.logprobs, np.float32, len(self.ids) if self.drawn else 0)
        edges = [0, *(span.last for span in self.versions)]
        tiles = [span.first for span in self.versions] == edges[:-1] and edges == sorted(edges)
        if not tiles or edges[-1] != (len(self.ids) if self.drawn else 0):
            raise ValueError(f"turn.versions: got {self.versions}, needs spans that tile {len(self.ids)} drawn tokens, or none")

    def __reduce__(self) -> Any:
        if len(self.ids) > SHORT:  # arrays of their own, which a reader on the same node sees where they lie
            return Turn, (self.ids, self.logprobs, self.drawn, self.versions)
        return _short_turn, (self.ids.tobytes(), self.logprobs.tobytes(), self.drawn, self.versions)


def _short_turn(ids: bytes, logprobs: bytes, drawn: bool, versions: tuple[Span, ...]) -> Turn:
    return Turn(np.frombuffer(ids, np.int32), np.frombuffer(logprobs, np.float32), drawn, versions)


def world(ids: ArrayLike) -> Turn:
    """Return a turn of the world."""
    return Turn(token_ids(ids), NOTHING, False)


def drawn(ids: ArrayLike, logprobs: ArrayLike, version: int) -> Turn:
    """Return a turn that the policy drew with weights of one version."""
    tokens = token_ids(ids)
    return Turn(tokens, np.asarray(logprobs, np.float32), True, (Span(version, 0, len(tokens)),))


@dataclass(frozen=True, slots=True, eq=False)
class Episode:
    """What one prompt became in one of its samples. The first turn is the prompt."""

    prompt: int
    """Row of the prompt file."""
    group: int
    """Position of the prompt in the rollout, 0-based."""
    sample: int
    """Position in the group, 0-based."""
    turns: tuple[Turn, ...]
    finish: Finish
    reward: float | None = None
    failure: str = ""
    """Why it failed, in one line; empty unless `finish` is failed."""
    calls: Mapping[str, int] = field(default_factory=dict)
    """Of tool calls, by how they ended: ok, error, failed; and WAITED."""
    said: tuple[tuple[tuple[str, str], ...], ...] = ()
    """(role, text) of the messages of each turn of the world behind the prompt; empty for single turns."""
    extras: Mapping[str, Any] = field(default_factory=dict)
    """References to what else was made on the way (routed experts, ...); it stays where it was made."""

    def __post_init__(self) -> None:
        if not self.turns or self.turns[0].drawn or not len(self.turns[0].ids):
            raise ValueError("episode.turns: the first must be the prompt, with at least one token")

    def __reduce__(self) -> Any:
        return Episode, tuple(getattr(self, name) for name in self.__slots__)

    @property
    def ids(self) -> Int32:
        """All tokens, int32 [L]."""
        return np.concatenate([turn.ids for turn in self.turns])

    @property
    def mask(self) -> Bool:
        """True on drawn tokens, bool [L]."""
        return np.concatenate([np.full(len(turn.ids), turn.drawn) for turn in self.turns])

    @property
    def logprobs(self) -> Float32:
        """Log-probabilities of the drawn tokens, float32 [R]."""
        return np.concatenate([NOTHING, *(turn.logprobs for turn in self.turns if turn.drawn)])

    @property
    def answer_ids(self) -> Int32:
        """Everything after the prompt, int32 [L - prompt]."""
        return np.concatenate([np.zeros(0, np.int32), *(turn.ids for turn in self.turns[1:])])

    @property
    def response_ids(self) -> Int32:
        """What the policy drew last, int32 [T]; [0] when it drew nothing."""
        return next((turn.ids for turn in reversed(self.turns) if turn.drawn), np.zeros(0, np.int32))

    @property
    def tokens(self) -> tuple[int, int, int]:
        """(tokens of the prompt, of the whole episode L, drawn R)."""
        lengths = [len(turn.ids) for turn in self.turns]
        return lengths[0], sum(lengths), sum(n for n, turn in zip(lengths, self.turns, strict=True) if turn.drawn)

    @property
    def versions(self) -> tuple[int, int]:
        """(oldest, newest) version of weights that drew a token; (-1, -1) when none was drawn."""
        found = [span.version for turn in self.turns for span in turn.versions]
        return (min(found), max(found)) if found else (-1, -1)


@dataclass(frozen=True, slots=True, eq=False)
class TrainSample:
    """An episode with everything the loss needs; values of drawn tokens are [R]."""

    ids: Int32
    """[L]."""
    mask: Bool
    """[L], True on drawn tokens; never on the first, which nothing predicts."""
    rollout_logprobs: Float32
    advantage: Float32
    old_logprobs: Float32 | None = None
    """Trainer log-probabilities before the update; None when one update per rollout makes them the current ones."""
    ref_logprobs: Float32 | None = None

    def __post_init__(self) -> None:
        _vector("sample.ids", self.ids, np.int32)
        _vector("sample.mask", self.mask, np.bool_, len(self.ids))
        if not len(self.ids) or self.mask[0]:
            raise ValueError("sample.mask: the first token must be the world's: a training sample needs at least one prompt token")
        for name in ("rollout_logprobs", "advantage", "old_logprobs", "ref_logprobs"):
            value = getattr(self, name)
            if value is not None or name in ("rollout_logprobs", "advantage"):
                _vector(f"sample.{name}", value, np.float32, self.drawn_tokens)

    @property
    def drawn_tokens(self) -> int:
        """R."""
        return int(np.count_nonzero(self.mask))


def bare_sample(episode: Episode) -> TrainSample:
    """Return the tokens of an episode with zero advantages: for log-probabilities."""
    logprobs = episode.logprobs
    return TrainSample(episode.ids, episode.mask, logprobs, np.zeros(len(logprobs), np.float32))


@dataclass(frozen=True, slots=True)
class EpisodeRef:
    """What the driver holds of an episode: numbers, and a reference to the rest."""

    prompt: int
    group: int
    sample: int
    prompt_tokens: int
    tokens: int
    """L."""
    drawn_tokens: int
    """R."""
    oldest: int
    """Oldest and newest version of weights that drew a token."""
    newest: int
    finish: Finish
    engine: int = 0
    """Engine that drew it."""
    ref: Any = None
    """The Episode itself in one process; an ObjectRef to it on Ray."""
    reward: float = 0.0
    broken: int = 0
    """Drawn tokens whose log-probability is NaN or infinite."""
    excerpt: str = ""
    """Beginning and end of the text, of the group's first sample."""
    turns: int = 1
    """That the policy took."""
    failure: str = ""
    """See Episode; at most FAILURE_CHARACTERS."""
    calls: tuple[tuple[str, int], ...] = ()
    """See Episode."""

    @property
    def lost(self) -> bool:
        """Whether it has no part in the loss, nor in any mean: it failed, or was aborted, by no doing of the policy."""
        return self.finish in ("failed", "abort")


def described(episode: Episode, ref: Any = None, engine: int = 0) -> EpisodeRef:
    """Return the driver's view of an episode."""
    broken = int(np.count_nonzero(~np.isfinite(episode.logprobs)))
    numbers = *episode.tokens, *episode.versions
    return EpisodeRef(
        *(episode.prompt, episode.group, episode.sample, *numbers, episode.finish),
        engine=engine,
        ref=ref,
        broken=broken,
        turns=sum(turn.drawn for turn in episode.turns),
        failure=shortened(one_line(episode.failure), FAILURE_CHARACTERS),
        calls=tuple(sorted(episode.calls.items())),
    )


@dataclass(frozen=True, slots=True)
class BatchRef:
    """A rollout batch, or a run of it, as the driver holds it: no token, no log-probability, no text."""

    episodes: tuple[EpisodeRef, ...]
    old: tuple[Any, ...] | None = None
    """References to the policy's log-probabilities before the update, float32 [R] each, where they were computed."""
    reference: tuple[Any, ...] | None = None
    """The same of the reference policy."""

    def __post_init__(self) -> None:
        for name in ("old", "reference"):
            rows = getattr(self, name)
            if rows is not None and len(rows) != len(self.episodes):
                raise ValueError(f"batch.{name}: got {len(rows)} rows, needs one for each of the {len(self.episodes)} episodes")

    def __len__(self) -> int:
        return len(self.episodes)

    @property
    def lengths(self) -> Int32:
        """Tokens of each episode, int32 [N]."""
        return np.array([episode.tokens for episode in self.episodes], np.int32)

    @property
    def drawn(self) -> Int32:
        """Drawn tokens of each episode, int32 [N]."""
        return np.array([episode.drawn_tokens for episode in self.episodes], np.int32)

    @property
    def rewards(self) -> Sequence[float]:
        """[N]."""
        return [episode.reward for episode in self.episodes]

    @property
    def groups(self) -> Sequence[int]:
        """[N]."""
        return [episode.group for episode in self.episodes]
