"""Status of a LowPrecisionRLJob: a projection, never an input of decisions except attempt, restarts and times."""

from enum import StrEnum
from typing import Literal

from lprl_api.base import Contract, NonNegativeInt
from lprl_api.model_shape import Inspection
from lprl_api.progress import CheckpointRef, EvaluationResult


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


class ConditionStatus(Contract):
    """A Kubernetes condition; lastTransitionTime moves only when status flips."""

    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str = ""
    last_transition_time: str
    observed_generation: NonNegativeInt = 0


class ConversionStatus(Contract):
    """Progress of the conversions this job needs, summed over them."""

    shards: NonNegativeInt = 0
    shards_done: NonNegativeInt = 0
    content_keys: tuple[str, ...] = ()
    progress: str = ""
    """`61/62`, for the CONVERTED column."""


class NodesStatus(Contract):
    """Worker pods ready and wanted."""

    ready: NonNegativeInt = 0
    wanted: NonNegativeInt = 0
    summary: str = ""
    """`32/32`, for the NODES column."""


class TrainingStatus(Contract):
    """Numbers of the run for columns and dashboards."""

    step: NonNegativeInt = 0
    steps: NonNegativeInt = 0
    summary: str = ""
    """`120/500`, for the STEP column."""
    reward: str | None = None
    mismatch: str | None = None
    tokens_per_second: str | None = None
    seconds_left: NonNegativeInt | None = None
    weight_version: NonNegativeInt = 0
    evaluation: EvaluationResult | None = None
    evaluation_reward: str | None = None
    checkpoint: CheckpointRef | None = None
    export: str | None = None


class PlanStatus(Contract):
    """The plan in short."""

    nodes: NonNegativeInt = 0
    trainer_ranks: NonNegativeInt = 0
    engines: NonNegativeInt = 0
    summary: str = ""


class FailureRecord(Contract):
    """One entry of the attempt history (the newest ten are kept)."""

    attempt: NonNegativeInt
    reason: str
    message: str
    step: NonNegativeInt
    time: str


class LowPrecisionRLJobStatus(Contract):
    """Observed state. Times are RFC 3339 UTC, whole seconds."""

    observed_generation: NonNegativeInt = 0
    phase: Phase = Phase.PENDING
    conditions: tuple[ConditionStatus, ...] = ()
    precision: str = ""
    effective_precision: str | None = None
    attempt: NonNegativeInt = 0
    """Of the current RayCluster, 0 before the first; written before any child of it exists."""
    restarts_used: NonNegativeInt = 0
    """Restarts charged to the budget since it last refilled."""
    refill_step: NonNegativeInt = 0
    """Step at which the current budget started."""
    restart_not_before: str | None = None
    """End of the back-off of the next attempt."""
    spec_hash: str | None = None
    """Hash of the immutable part of the spec when the job started."""
    inspection: Inspection | None = None
    plan: PlanStatus = PlanStatus()
    conversion: ConversionStatus = ConversionStatus()
    nodes: NodesStatus = NodesStatus()
    training: TrainingStatus = TrainingStatus()
    progress_sequence: NonNegativeInt = 0
    progress_time: str | None = None
    """When the operator last saw the driver's sequence change, by the operator's clock."""
    attempt_started_at: str | None = None
    start_time: str | None = None
    completion_time: str | None = None
    active_seconds: NonNegativeInt = 0
    """Active time before the last suspension, for activeDeadlineSeconds."""
    active_since: str | None = None
    failures: tuple[FailureRecord, ...] = ()
    message: str = ""
