"""One episode while it runs: what was drawn and put in so far, token for token, within its limits.

    prompt [P] -> draw() -> put(tool's answer) -> draw() -> ... -> episode
                  drawn      world                drawn

Rollout functions get a Conversation and call `draw` and `put`; they never touch token ids.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from lprl_api.errors import UserError
from lprl_workload.agent.between import Message, TurnTokens
from lprl_workload.data import SamplingParams
from lprl_workload.episode import Finish, Int32, Turn, world
from lprl_workload.rollout.completions import spans_of
from lprl_workload.rollout.engine import Sampler
from lprl_workload.rollout.requests import Request
from lprl_workload.rollout.seeds import turn_seed


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one episode."""

    turns: int
    """Turns of the policy."""
    tokens: int
    """After the prompt, drawn or put in, and within the context."""
    tool_tokens: int
    """Of one answer of a tool."""


class EpisodeOver(RuntimeError):
    """Raised in a rollout that draws although the episode has ended; it need not be caught."""


@dataclass(slots=True)
class Conversation:
    """An episode in the making."""

    id: str
    prompt: Int32
    """[P]."""
    seed: int
    sampling: SamplingParams
    limits: Limits
    policy: Sampler
    between: TurnTokens | None
    """None where only one turn is drawn."""
    decode: Callable[[Int32], str]
    turns: list[Turn] = field(default_factory=list)
    finish: Finish | None = None
    """Set when the policy cannot go on; None while it may."""
    failures: list[str] = field(default_factory=list)
    """What went wrong and was not the policy's doing: such an episode takes no part in the loss."""
    counts: dict[str, int] = field(default_factory=dict)
    """Of tool calls, by how they ended."""
    said: list[tuple[tuple[str, str], ...]] = field(default_factory=list)
    """(role, text) of the messages of each turn of the world."""
    clock: asyncio.Timeout | None = None
    """Ends a rollout that takes too long; stands still while the engine draws."""
    drawing: bool = False
    """Whether the policy is taking a turn."""
    task: "asyncio.Task[Any] | None" = None
    """Runs the rollout."""
    aborted: bool = False
    """Whether nobody wants the episode any more."""
    error: Exception | None = None
    """What the engine raised: no episode's failure, and never to be lost in a rollout that catches everything."""

    @property
    def tokens(self) -> int:
        """After the prompt."""
        return sum(len(turn.ids) for turn in self.turns)

    @property
    def drawn_turns(self) -> int:
        """Turns of the policy so far."""
        return sum(turn.drawn for turn in self.turns)

    async def draw(self, max_tokens: int | None = None) -> str:
        """Let the policy take a turn and return its text; `finish` says whether and how it ended for good.

        A turn that ends by itself leaves `finish` None while another may follow: the rollout says "stop" by returning.

        Raises:
            EpisodeOver: the episode has ended.
            RuntimeError: the world has not spoken since the last turn.

        """
        if self.finish is not None:
            await asyncio.sleep(0)  # a rollout that catches this and tries again must not keep everybody else from running
            raise EpisodeOver(f"the episode has ended ({self.finish})")
        if self.drawing or (self.turns and self.turns[-1].drawn):
            raise RuntimeError("the policy has spoken: put something before it draws again")
        room = min(self.sampling.max_response_tokens, self.limits.tokens - self.tokens, max_tokens or self.limits.tokens)
        if self.drawn_turns >= self.limits.turns or room < 1:
            self.finish = "turn-limit" if self.drawn_turns >= self.limits.turns else "length"
            return ""
        turn, how = await self._timeless(room)
        self.turns.append(turn)
        if how != "stop":
            self.finish = how
        if self.aborted:
            raise EpisodeOver("the episode was aborted")
        return self.decode(turn.ids)

    def put(self, messages: Sequence[Message]) -> None:
        """Put messages (role tool or user) behind the policy's turn; does nothing once the episode has ended.

        Messages the chat template refuses fail the episode.

        Raises:
            RuntimeError: the policy has not spoken yet.

        """
        if self.finish is not None:
            return
        if self.between is None or not self.turns or not self.turns[-1].drawn:
            raise RuntimeError("only behind a turn of the policy something can be put, and only where several turns are allowed")
        try:
            ids = self.between.between(self.turns[-1].ids, messages)
        except UserError as error:
            self.fail(str(error))
            return
        if self.tokens + len(ids) >= self.limits.tokens:
            self.finish = "length"
            return
        self.turns.append(world(ids))
        self.said.append(tuple((str(m["role"]), str(m["content"])) for m in messages))

    def cut(self, text: str, mark: str) -> str:
        """Return what a tool answered with at most the limit's tokens: its beginning and `mark`."""
        return text if self.between is None else self.between.cut(text, self.limits.tool_tokens, mark)

    def fail(self, why: str) -> None:
        """End the episode for a reason that is not the policy's: counted and told, and left out of the loss."""
        self.failures.append(why.encode("utf-8", "replace").decode())  # no report holds half of a character
        self.finish = "failed"

    def abort(self) -> None:
        """End the episode as aborted, in its own event loop: whatever its rollout waits for is cancelled, a turn is the engine's to end."""
        self.aborted = True
        if self.finish is None:
            self.finish = "abort"
        if self.task is not None and not self.drawing:
            self.task.cancel()

    async def _timeless(self, room: int) -> tuple[Turn, Finish]:
        """Draw while the episode's clock stands still: how long an engine takes is not the episode's doing."""
        clock, now = self.clock, asyncio.get_running_loop().time
        due = clock.when() if clock is not None else None
        left = due - now() if due is not None else 0.0
        if clock is not None and due is not None:
            clock.reschedule(None)
        self.drawing = True
        try:
            return await self._drawn(room)
        except Exception as error:
            self.error = error
            raise
        finally:
            self.drawing = False
            if clock is not None and due is not None and not clock.expired():
                clock.reschedule(now() + left)

    async def _drawn(self, room: int) -> tuple[Turn, Finish]:
        number = self.drawn_turns
        context = np.concatenate([self.prompt, *(turn.ids for turn in self.turns)])
        sampling = replace(self.sampling, max_response_tokens=room)
        request = Request(f"{self.id}/{number}", context, sampling, turn_seed(self.seed, number))
        chunks = [chunk async for chunk in self.policy.generate(request)]
        ids, logprobs = (np.concatenate([getattr(chunk, name) for chunk in chunks]) for name in ("ids", "logprobs"))
        return Turn(ids, logprobs, True, spans_of(chunks)), chunks[-1].finish or "abort"
