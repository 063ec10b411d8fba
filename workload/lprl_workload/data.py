"""What crosses module borders, with shapes; episodes and training samples are in episode.py. R = response tokens of one request."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from lprl_workload.episode import Episode, Finish, Float32, Int32, Span, Turn, token_ids, world


@dataclass(frozen=True, slots=True, eq=False)
class Prompt:
    """One row of the prompt file, rendered and tokenised."""

    index: int
    """Row number in the file (stable over epochs)."""
    text: str
    token_ids: Int32
    label: str | tuple[str, ...] | None
    """What the reward compares with; of several, any is right."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    origin: str = ""
    """File and row, for errors."""


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How one response is drawn; temperature 0 is greedy."""

    temperature: float
    top_p: float
    top_k: int | None
    max_response_tokens: int
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class GenerationRequest:
    """One response to draw. Equal requests on equal weights give equal responses, whichever engine serves them,
    as long as they are batched alike: the random stream depends on `seed` only.
    """

    prompt_ids: Int32
    """[prompt tokens]."""
    seed: int
    """Derived from (run seed, step, prompt index, sample number); see rollout/seeds.py."""
    prompt: int = 0
    group: int = 0
    sample: int = 0
    """Whose response it is: row of the prompt file, position in the rollout, position in the group."""
    row: Prompt | None = None
    """The whole row, for rollouts of the user's own; None where its tokens are enough."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "prompt_ids", token_ids(self.prompt_ids))

    @property
    def key(self) -> tuple[bytes, int]:
        """What the response follows from, hashable."""
        return self.prompt_ids.tobytes(), self.seed


@dataclass(frozen=True, slots=True, eq=False)
class Completion:
    """An engine's answer to one GenerationRequest."""

    response_ids: Int32
    """[R], including the end token when finish is `stop` by token."""
    logprobs: Float32
    """[R] log-probability of each token under the serving weights at the sampling temperature, before top-p/top-k."""
    finish: Finish
    versions: tuple[Span, ...]
    """Weight versions that drew the tokens; they tile [0, R)."""

    def episode(self, request: GenerationRequest) -> Episode:
        """Return the single-turn episode: the prompt, and the response."""
        turn = Turn(self.response_ids, self.logprobs, True, self.versions)
        return Episode(request.prompt, request.group, request.sample, (world(request.prompt_ids), turn), self.finish)


@dataclass(frozen=True, slots=True)
class NamedTensor:
    """A checkpoint tensor under its Hugging Face name."""

    name: str
    tensor: Tensor


@dataclass(frozen=True, slots=True)
class Bucket:
    """Named tensors flattened into one byte buffer, for transports that like few large messages.

    Invariant: entries tile `data` in order without gaps except alignment padding to 16 bytes.
    """

    entries: tuple["BucketEntry", ...]
    data: Tensor
    """uint8 [bytes]."""


@dataclass(frozen=True, slots=True)
class BucketEntry:
    """Where one tensor lies in a bucket."""

    name: str
    dtype: str
    """safetensors name: BF16, F32, F8_E4M3, I32, ..."""
    shape: tuple[int, ...]
    offset: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class SyncReport:
    """One weight push."""

    version: int
    tensors: int
    nbytes: int
    seconds: float
    relative_rms_error: float
    """Root-mean-square quantisation error over the quantised tensors, relative to their RMS; 0 for bf16."""
    checked: Literal["counts", "checksum"]
    """What sender and engines compared: names, dtypes, shapes and bytes; or also a checksum of every tensor."""


Metrics = dict[str, float]
