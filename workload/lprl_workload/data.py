"""What crosses module borders, with shapes. P = prompt tokens, R = response tokens of one sample.

Worked example, two prompts with two samples each (a rollout of 4 samples):

    group 0: Sample(prompt_index=17, group=0, sample=0, response_ids=(5, 9, 2), reward=1.0, ...)
             Sample(prompt_index=17, group=0, sample=1, response_ids=(7, 2),    reward=0.0, ...)
    group 1: Sample(prompt_index=3,  group=1, ...), Sample(prompt_index=3, group=1, ...)

Group 0 has mean reward 0.5, so its GRPO advantages are (+0.707, -0.707); a group with equal rewards has advantage 0.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Prompt:
    """One row of the prompt file, rendered and tokenised."""

    index: int
    """Row number in the file (stable over epochs)."""
    text: str
    token_ids: tuple[int, ...]
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


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One response to draw. Equal requests on equal weights give equal responses, whichever engine serves them,
    as long as they are batched alike: the random stream depends on `seed` only.
    """

    prompt_ids: tuple[int, ...]
    seed: int
    """Derived from (run seed, step, prompt index, sample number); see rollout/seeds.py."""


@dataclass(frozen=True, slots=True)
class Completion:
    """An engine's answer to one GenerationRequest."""

    response_ids: tuple[int, ...]
    """[R], including the end token when finish is `stop` by token."""
    logprobs: tuple[float, ...]
    """[R] log-probability of each token under the serving weights at the sampling temperature, before top-p/top-k."""
    finish: Literal["stop", "length"]
    version_first: int
    version_last: int
    """Weight versions that made the first and the last token."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A scored response."""

    prompt_index: int
    group: int
    """Position of the prompt in the rollout, 0-based."""
    sample: int
    """Position in the group, 0-based."""
    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    rollout_logprobs: tuple[float, ...]
    reward: float
    finish: Literal["stop", "length"]
    version_first: int
    version_last: int
    text: str = ""


@dataclass(frozen=True, slots=True)
class TrainSample:
    """A sample with everything the loss needs; per-token values cover the response only, [R]."""

    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    rollout_logprobs: tuple[float, ...]
    advantage: tuple[float, ...]
    old_logprobs: tuple[float, ...] | None = None
    """Trainer log-probabilities before the update; None when one update per rollout makes them the current ones."""
    ref_logprobs: tuple[float, ...] | None = None


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
    digest: str
    """sha256 over names, dtypes, shapes and bytes in name order; sender and receiver compare it."""


Metrics = dict[str, float]
