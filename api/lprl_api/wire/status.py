"""Status of a LowPrecisionRLJob: a projection, never an input of decisions except attempt, restarts and times."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AfterValidator

from lprl_api.base import MAX_STRING, Documented, NonNegativeInt
from lprl_api.checkpoint_ref import CheckpointRef
from lprl_api.model.model_shape import Inspection
from lprl_api.text import shortened
from lprl_api.wire.answers import AnswersStatus
from lprl_api.wire.progress import EvaluationResult

Message = Annotated[str, AfterValidator(lambda text: shortened(text, MAX_STRING))]
"""For people, and of any origin: a status with more than the schema lets through is never written, and the job stands still."""


class Phase(StrEnum):
    """One word for people; computed from the conditions."""

    PENDING = "Pending"
    INSPECTING = "Inspecting"
    CONVERTING = "Converting"
    PROVISIONING = "Provisioning"
    RUNNING = "Running"
    RESTARTING = "Restarting"
    SUSPENDED = "Suspended"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


class ConditionStatus(Documented):
    """A Kubernetes condition; lastTransitionTime moves only when status flips."""

    type: str
    """Validated, Inspected, Converted, ClusterReady, Progressing, TrainingStable, RewardSignal, Suspended, Complete or Failed."""
    status: Literal["True", "False", "Unknown"]
    """True, False or Unknown."""
    reason: str
    """One word for why; docs/failure-modes.md explains each."""
    message: Message = ""
    """The same for people: what was found and what fits."""
    last_transition_time: str
    """When status last changed, RFC 3339 UTC."""
    observed_generation: NonNegativeInt = 0
    """metadata.generation the condition was computed from."""


class ConversionStatus(Documented):
    """Progress of the conversions this job needs, summed over them."""

    shards: NonNegativeInt = 0
    """Shards to convert, over all conversions."""
    shards_done: NonNegativeInt = 0
    """Shards converted so far."""
    content_keys: tuple[str, ...] = ()
    """Content keys of the conversions, the names of their folders."""
    progress: str = ""
    """`61/62`, for the CONVERTED column."""
    answers: AnswersStatus | None = None
    """What it does to the model's answers, where spec.conversion.verify asks for it."""


class NodesStatus(Documented):
    """Worker pods ready and wanted."""

    ready: NonNegativeInt = 0
    """Worker pods that are ready."""
    wanted: NonNegativeInt = 0
    """Worker pods of the plan."""
    summary: str = ""
    """`32/32`, for the NODES column."""


class TrainingStatus(Documented):
    """Numbers of the run for columns and dashboards."""

    step: NonNegativeInt = 0
    """Finished rollout steps."""
    steps: NonNegativeInt = 0
    """Rollout steps of the run."""
    summary: str = ""
    """`120/500`, for the STEP column."""
    reward: str | None = None
    """Mean reward of the last step."""
    mismatch: str | None = None
    """k3 estimate of the KL between rollout and training, of the last step."""
    tokens_per_second: str | None = None
    """Generated tokens per second of the last step."""
    episodes: str | None = None
    """What became of the last step's episodes, where they have several turns: failed ones and why, tool calls, turns."""
    seconds_left: NonNegativeInt | None = None
    """Estimated time to the end, seconds."""
    staleness: str | None = None
    """By how many steps the samples of the last step were older than what it trained: `0.97, at most 1`."""
    trainer_idle: str | None = None
    """Share of the last step in which the trainer waited for its batch: `12 %`."""
    engines_idle: str | None = None
    """Share of the last step in which no request was open at any engine."""
    lost_episodes: str | None = None
    """Episodes of the last step that failed or were aborted, and responses that were given up since the attempt began."""
    weight_version: NonNegativeInt = 0
    """Version of the weights the engines serve; grows by one with every sync."""
    evaluation: EvaluationResult | None = None
    """Newest held-out evaluation."""
    evaluation_reward: str | None = None
    """Mean reward of the newest evaluation."""
    checkpoint: CheckpointRef | None = None
    """Newest complete checkpoint."""
    export: str | None = None
    """Folder of the exported models, VOLUME:PATH."""


class PlanStatus(Documented):
    """The plan in short."""

    nodes: NonNegativeInt = 0
    """Worker nodes in all."""
    trainer_ranks: NonNegativeInt = 0
    """Processes that train."""
    engines: NonNegativeInt = 0
    """Rollout engines."""
    summary: str = ""
    """The plan in one line."""


class PodTrouble(Documented):
    """A pod of the current attempt whose image cannot be pulled, or whose container cannot be made."""

    pod: str
    """Its name."""
    since: str
    """When that was first seen, RFC 3339 UTC."""


class FailureRecord(Documented):
    """One entry of the attempt history (the newest ten are kept)."""

    attempt: NonNegativeInt
    """Attempt that ended."""
    reason: str
    """One word for why; docs/failure-modes.md explains each."""
    message: Message
    """What was seen."""
    step: NonNegativeInt
    """Finished rollout steps at that time."""
    time: str
    """When the failure was seen, RFC 3339 UTC."""


class LowPrecisionRLJobStatus(Documented):
    """Observed state. Times are RFC 3339 UTC, whole seconds."""

    observed_generation: NonNegativeInt = 0
    """metadata.generation this status was computed from."""
    phase: Phase = Phase.PENDING
    """One word for people, computed from the conditions."""
    conditions: tuple[ConditionStatus, ...] = ()
    """What holds of the job, each with a reason."""
    precision: str = ""
    """Training and rollout precision as asked for, such as int4-qat/int4 or `fp8-qat/fp8 weight-only`."""
    effective_precision: str | None = None
    """The same as run, once the stability guard changed it."""
    attempt: NonNegativeInt = 0
    """Number of the current attempt, 0 before the first; written before anything carries it."""
    attempt_unused: bool = False
    """Whether no pod of that attempt was ever made: suspended or corrected while its queue held it, so the next attempt has its number."""
    cluster: str = ""
    """RayCluster that attempts run in; named after the first of them."""
    head: str = ""
    """Uid of the head pod whose driver reported in this attempt: another one is not this attempt's."""
    restarts_used: NonNegativeInt = 0
    """Restarts charged to the budget since it last refilled."""
    refill_step: NonNegativeInt = 0
    """Step at which the current budget started."""
    restart_not_before: str | None = None
    """End of the back-off of the next attempt."""
    spec_parts: dict[str, str] = {}
    """Hash of each part of the spec as it was last accepted: tells what an edit changed."""
    prepared_claims: str | None = None
    """Hash of the claims that source and conversions of the newest attempt are on."""
    inspection: Inspection | None = None
    """What the inspection of the source found."""
    plan: PlanStatus = PlanStatus()
    """The plan in short."""
    conversion: ConversionStatus = ConversionStatus()
    """Progress of the conversions."""
    nodes: NodesStatus = NodesStatus()
    """Worker pods."""
    training: TrainingStatus = TrainingStatus()
    """Numbers of the run."""
    progress_sequence: NonNegativeInt = 0
    """Sequence number of the driver's newest report."""
    progress_moved: NonNegativeInt | None = None
    """The run's counter of what moved, as last seen; a driver of an earlier version has only its sequence number."""
    progress_time: str | None = None
    """When that counter last changed, by the operator's clock: a run that stands still since then is stalled."""
    attempt_started_at: str | None = None
    """When the current attempt started, RFC 3339 UTC."""
    pod_trouble: PodTrouble | None = None
    """What keeps a pod of it from starting; ten minutes of that before the run begins end the job."""
    start_time: str | None = None
    """When the job first started, RFC 3339 UTC; from then on what decides the result may not change."""
    training_start_time: str | None = None
    """When a driver first began to load the model, RFC 3339 UTC; from then on the claims of spec.volumes may not change."""
    completion_time: str | None = None
    """When it succeeded or failed, RFC 3339 UTC."""
    active_seconds: NonNegativeInt = 0
    """Active time before the last suspension, for activeDeadlineSeconds."""
    active_since: str | None = None
    """When it last became active, RFC 3339 UTC."""
    failures: tuple[FailureRecord, ...] = ()
    """Attempts that ended before the run was done, the newest ten; evictions too, which charge nothing."""
    message: str = ""
    """What goes on, in one line."""
