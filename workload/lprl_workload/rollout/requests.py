"""What engines are asked and what they answer, token for token. P = prompt tokens, T = tokens of a chunk.

Worked example, a response of three tokens whose weights changed on the way (pause in place, push, resume):

    Request("17/0", prompt=[5, 9], sampling, seed=77)  ->  Chunk([7, 3], [-0.5, -1.2], version=4, finish=None)
                                                           Chunk([2],    [-0.1],       version=5, finish="stop")
    the same, aborted after two tokens                 ->  Chunk([7, 3], [-0.5, -1.2], version=4, finish="abort")
    and gone on with later, also by another engine     ->  Request("17/0", prompt=[5, 9, 7, 3], sampling, seed=77, drawn=2)
"""

from dataclasses import dataclass
from typing import Literal

from lprl_workload.data import SamplingParams
from lprl_workload.episode import Float32, Int32

Ability = Literal[
    "seed-exact",
    "batch-invariant",
    "in-place-pause",
    "sessions",
    "cuda-ipc",
    "nccl",
    "disk",
    "engine-layout",
    "checksum",
    "routed-experts",
]
"""What an engine can do beyond the core of the contract.

seed-exact: a response is a function of weights, request and seed, as long as the same requests come in the same order.
batch-invariant: of weights, request and seed alone, bit for bit, log-probabilities too: whatever is generated beside it, and when.
in-place-pause: open requests survive `pause("in-place")` with their KV cache, and a weight update while paused.
sessions: keeps the cache of an episode between its turns. routed-experts: returns the experts that every token was routed to.
cuda-ipc, nccl, disk: ways it takes weights. engine-layout: in its own layout. checksum: computes one over what it holds.
"""
Part = Literal["weights", "kv"]
"""What an engine can free while others need the memory."""
PauseMode = Literal["abort", "retract", "in-place"]
"""abort: open requests end with what they have drawn. retract: they wait, and compute their cache anew. in-place: they stand still."""
Finish = Literal["stop", "length", "abort"]
"""How one response ends; an episode (`episode.Finish`) can end in more ways."""


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """One response to draw: tokens in, tokens out."""

    id: str
    """Unique among an engine's open requests."""
    prompt: Int32
    """[P], at least one token."""
    sampling: SamplingParams
    seed: int
    """Of its random stream; see rollout/seeds.py."""
    drawn: int = 0
    """So many of the prompt's last tokens were drawn for this very request before: they count against its limit and its stop
    strings, and its random stream goes on behind them. Their log-probabilities are the caller's."""


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """The next tokens of a response."""

    ids: Int32
    """[T], T >= 0; the end token included when finish is `stop` by token."""
    logprobs: Float32
    """[T] under the weights that drew them, at the sampling temperature, before top-p and top-k."""
    version: int
    """Of the weights that drew all of them."""
    finish: Finish | None
    """How the response ended, on its last chunk."""


@dataclass(frozen=True, slots=True)
class EngineState:
    """How an engine is."""

    alive: bool
    """False: it will never serve again."""
    ready: bool
    """Whether a request sent now would be worked at now."""
    version: int
    """Of the complete weights being served; -1 before the first."""
    running: int
    """Requests being worked at."""
    waiting: int
    """Requests taken that have no place yet."""
