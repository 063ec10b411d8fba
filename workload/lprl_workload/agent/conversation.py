"""One episode while it runs: what was drawn and put in so far, token for token, within its limits.

    prompt [P] -> draw() -> put(tool's answer) -> draw() -> ... -> episode
                  drawn      world                drawn

Rollout functions get a Conversation and call `draw` and `put`; they never touch token ids.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

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
            RuntimeError: the episode has ended, or the world has not spoken since the last turn.

        """
        if self.finish is not None:
            raise RuntimeError(f"the episode has ended ({self.finish}): return from the rollout")
        if self.turns and self.turns[-1].drawn:
            raise RuntimeError("the policy has spoken: put something before it draws again")
        room = min(self.sampling.max_response_tokens, self.limits.tokens - self.tokens, max_tokens or self.limits.tokens)
        if self.drawn_turns >= self.limits.turns or room < 1:
            self.finish = "turn-limit" if self.drawn_turns >= self.limits.turns else "length"
            return ""
        turn, how = await self._drawn(room)
        self.turns.append(turn)
        if how != "stop":
            self.finish = how
        return self.decode(turn.ids)

    def put(self, messages: Sequence[Message]) -> None:
        """Put messages (role tool or user) behind the policy's turn; does nothing once the episode has ended.

        Raises:
            UserError: the chat template refuses them.
            RuntimeError: the policy has not spoken yet.

        """
        if self.finish is not None:
            return
        if self.between is None or not self.turns or not self.turns[-1].drawn:
            raise RuntimeError("only behind a turn of the policy something can be put, and only where several turns are allowed")
        ids = self.between.between(self.turns[-1].ids, messages)
        if self.tokens + len(ids) >= self.limits.tokens:
            self.finish = "length"
            return
        self.turns.append(world(ids))

    def fail(self, why: str) -> None:
        """End the episode for a reason that is not the policy's: counted and told, and left out of the loss."""
        self.failures.append(why)
        self.finish = self.finish or "failed"

    async def _drawn(self, room: int) -> tuple[Turn, Finish]:
        number = self.drawn_turns
        context = np.concatenate([self.prompt, *(turn.ids for turn in self.turns)])
        sampling = replace(self.sampling, max_response_tokens=room)
        request = Request(f"{self.id}/{number}", context, sampling, turn_seed(self.seed, number))
        chunks = [chunk async for chunk in self.policy.generate(request)]
        ids, logprobs = (np.concatenate([getattr(chunk, name) for chunk in chunks]) for name in ("ids", "logprobs"))
        return Turn(ids, logprobs, True, spans_of(chunks)), chunks[-1].finish or "abort"
