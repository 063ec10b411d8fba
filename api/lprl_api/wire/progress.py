"""Progress (driver -> operator) and Control (operator -> driver), two keys of one ConfigMap."""

from typing import Annotated, Any, Literal, get_args

from pydantic import Field, ValidationInfo, field_validator

from lprl_api.base import Contract, Documented, NonNegativeFloat, NonNegativeInt
from lprl_api.checkpoint_ref import CheckpointRef
from lprl_api.spec.topology import Stability
from lprl_api.wire.answers import ConversionAnswers, LargestError
from lprl_api.wire.lenient import LENIENT

MESSAGE_CHARACTERS = 500
"""Longest message of a report."""
FAILURES, FAILURE_CHARACTERS = 3, 200
"""Failed episodes that are told of, and bytes of each: they go into a termination message with the rest of Progress."""
Share = Annotated[float, Field(ge=0, le=1)]
DriverPhase = Literal[
    "starting",
    "loading",
    "syncing",
    "generating",
    "training",
    "evaluating",
    "checkpointing",
    "exporting",
    "held",
    "stopping",
    "finished",
]


class EvaluationResult(Documented):
    """One held-out evaluation."""

    step: NonNegativeInt
    """Finished rollout steps when it was made."""
    reward: float
    """Mean reward of the held-out responses."""
    pass_at: dict[str, float] = {}
    """pass@k by k."""
    served: str = ""
    """Weights and activations the engines computed with."""
    weight_version: NonNegativeInt | None = None
    """Version of the weights that drew it. Earlier drivers do not say it."""
    lost_episodes: NonNegativeInt = 0
    """Episodes that failed or were aborted and are in no mean."""


class StabilityReport(Contract):
    """State of the mismatch guard."""

    state: Literal["measuring", "stable", "drifting", "corrected", "held", "rolled-back", "fallback-bf16"] = "measuring"
    metric: str = "k3"
    value: float | None = None
    baseline: float | None = None
    limit: float | None = None
    since_step: NonNegativeInt | None = None


class RewardSample(Contract):
    """A response as its scorer saw it, shortened."""

    prompt: str
    """The end of the prompt."""
    response: str
    label: str
    """Empty for none."""
    reward: float


class RewardSignal(Contract):
    """Whether the rewards of a run differ at all: equal ones teach nothing, and often mean that prompts, labels and scorer do not fit."""

    state: Literal["measuring", "varied", "all-zero", "all-equal"] = "measuring"
    """`varied` from the first two rewards that differ on; the others say what held of all rewards of the run's first steps."""
    value: float | None = None
    """The reward all of them have; None while there is none, or once they differ."""
    steps: NonNegativeInt = 0
    """Steps looked at."""
    responses: NonNegativeInt = 0
    samples: tuple[RewardSample, ...] = Field((), max_length=3)
    """Of the first step, as long as rewards are equal; at most 2 KiB as JSON."""


class EpisodeReport(Contract):
    """What became of the episodes of a step."""

    drawn: NonNegativeInt
    failed: NonNegativeInt = 0
    """By a tool, a time limit or an error in the rollout function; these and aborted ones have no part in the loss nor in any mean."""
    aborted: NonNegativeInt = 0
    turns: NonNegativeFloat = 0.0
    """Of the policy, mean."""
    calls: dict[str, NonNegativeInt] = {}
    """Of tools, by how they ended: ok, error (the model's mistake, which it was told), failed."""
    sandbox_wait_seconds: NonNegativeFloat | None = None
    """What calls waited for a sandbox, mean over the episodes that asked for one; None where no episode did."""
    failures: tuple[str, ...] = Field((), max_length=FAILURES)
    """The first that differ, each at most FAILURE_CHARACTERS bytes of JSON."""


class Progress(Contract):
    """What the driver knows of the run; numbers are of the last finished step."""

    schema_version: Literal[1] = 1
    attempt: NonNegativeInt
    sequence: NonNegativeInt
    """Grows with every report of an attempt: says that the driver's process lives, not that the run moves."""
    moved: NonNegativeInt | None = None
    """Grows with everything that gets on: phases, steps, tokens drawn, micro-batches, tensors sent or written. A stall is when it stands
    still. None from a driver of an earlier version: then `sequence` has to do.
    """
    still_seconds: NonNegativeFloat = 0.0
    """For how long `moved` had not changed when this was reported, by the driver's clock."""
    waits_for: Annotated[str, Field(max_length=MESSAGE_CHARACTERS)] = ""
    """What it is at, such as `generation, 12 of 64 responses`."""
    phase: DriverPhase
    """`starting` until the workers are there: nothing is trained yet and nothing is known of earlier steps."""
    step: NonNegativeInt
    """Finished rollout steps."""
    steps: NonNegativeInt
    weight_version: NonNegativeInt = 0
    reward: float | None = None
    mismatch_k3: float | None = None
    logprob_diff: float | None = None
    tokens_per_second: float | None = None
    step_seconds: float | None = None
    sync_seconds: float | None = None
    seconds_left: float | None = None
    staleness: NonNegativeFloat | None = None
    """By how many steps the weights that drew the step's samples were older than those it trained: mean over samples."""
    staleness_max: NonNegativeInt | None = None
    trainer_idle: Share | None = None
    """Share of the step in which the trainer waited for its batch."""
    engines_idle: Share | None = None
    """Share of the step in which no request was open at any engine."""
    dropped_episodes: NonNegativeInt = 0
    """Responses that were given up unfinished in this attempt, since their batch was made anew."""
    evaluation: EvaluationResult | None = None
    checkpoint: CheckpointRef | None = None
    export: str | None = None
    stability: StabilityReport = StabilityReport()
    reward_signal: RewardSignal | None = None
    """None until the driver knows what earlier attempts saw."""
    episodes: EpisodeReport | None = None
    """Of the last finished step; None for single turns."""
    effective_rollout: Literal["bf16", "fp8", "int4"] | None = None
    """Set when the guard changed what is served."""
    engine_restarts: NonNegativeInt = 0
    trainer_restarts: NonNegativeInt = 0
    message: str = ""

    @field_validator("phase", mode="before")
    @classmethod
    def _known(cls, phase: Any, info: ValidationInfo) -> Any:
        """Take a phase that only another version's driver knows for one of a run that goes on, where it is read leniently."""
        return "training" if info.context == LENIENT and isinstance(phase, str) and phase not in get_args(DriverPhase) else phase


class Control(Contract):
    """What the operator asks of the driver; read in the answer to each progress patch."""

    schema_version: Literal[1] = 1
    suspend: bool = False
    steps: NonNegativeInt
    stability: Stability


class Termination(Contract):
    """The driver's and the converters' termination message (at most 4096 bytes as JSON)."""

    reason: str
    """A constant of names.Reason, or Succeeded."""
    message: str
    owner_attempt: NonNegativeInt | None = None
    """Of a fenced process: the newer attempt that owns the checkpoint folder."""
    progress: Progress | None = None
    answers: ConversionAnswers | None = None
    """Of a finalise Job that was asked to measure them."""
    largest_error: LargestError | None = None
    """Of a finalise Job."""
