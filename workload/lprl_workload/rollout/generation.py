"""One response in the making, and when it ends."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from lprl_workload.episode import Int32
from lprl_workload.rollout.requests import Chunk, Finish, Request

Decode = Callable[[Sequence[int]], str]


@dataclass(frozen=True, slots=True)
class StopRule:
    """When a response ends."""

    token_ids: frozenset[int]
    strings: tuple[str, ...]
    decode: Decode

    def hits(self, response: Sequence[int]) -> bool:
        """Return whether `response` ends with a stop token or its last tokens complete a stop string."""
        if response[-1] in self.token_ids:
            return True
        if not self.strings:
            return False
        # A token other than a special one is at least one byte of UTF-8; four more tokens for a character cut in two.
        longest = max(len(text.encode()) for text in self.strings)
        tail = self.decode(response[-(longest + 4) :])
        return any(text in tail for text in self.strings)


@dataclass(slots=True)
class Row:
    """One response in the making."""

    request: Request
    limit: int
    """Most tokens it may have, those drawn before this request included."""
    stop: StopRule
    tokens: list[int] = field(default_factory=list)
    """All of the response so far: what was drawn before this request, and since."""
    logprobs: list[float] = field(default_factory=list)
    """Of the tokens drawn since."""
    given: int = 0
    """Tokens drawn since that went out in chunks."""
    stopped: bool = False
    cached: int = 0
    """Tokens whose keys are in its slot."""

    def __post_init__(self) -> None:
        if self.request.drawn and not self.tokens:
            self.tokens = self.request.prompt[-self.request.drawn :].tolist()

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self.stopped or len(self.tokens) >= self.limit

    @property
    def width(self) -> int:
        """Positions it can come to need."""
        return len(self.request.prompt) - self.request.drawn + self.limit

    @property
    def context(self) -> Int32:
        """Everything the next token depends on: the prompt, and what was drawn since, int32 [P + T]."""
        return np.concatenate([self.request.prompt, np.array(self.tokens[self.request.drawn :], np.int32)])

    def take(self, token: int, logprob: float) -> None:
        """Append a token."""
        self.tokens.append(token)
        self.logprobs.append(logprob)
        self.stopped = self.stop.hits(self.tokens)

    def chunk(self, version: int, aborted: bool = False) -> Chunk | None:
        """Return what was drawn since the last chunk, with how it ended if it did; None when there is nothing to tell."""
        finish: Finish | None = "abort" if aborted else "stop" if self.stopped else "length" if self.done else None
        ids, logprobs = self.tokens[self.request.drawn + self.given :], self.logprobs[self.given :]
        if not ids and finish is None:
            return None
        self.given += len(ids)
        return Chunk(np.array(ids, np.int32), np.array(logprobs, np.float32), version, finish)
