"""RunConfig (a ConfigMap) and ConvertConfig (carried by the Jobs): written by the operator, parsed once by the pods, complete."""

from typing import Any, Literal

from pydantic import Field

from lprl_api.base import Contract, NonNegativeInt, PositiveInt
from lprl_api.model.formats import WeightFormat
from lprl_api.model.model_shape import ModelShape
from lprl_api.spec.algorithm import Algorithm, Data, Evaluation, Optimizer, Sampling
from lprl_api.spec.episode import Episode
from lprl_api.spec.operations import ConversionVerify, ProgressReports, Tracking
from lprl_api.spec.precision import Precision
from lprl_api.spec.sources import ModelSource, VolumePath
from lprl_api.spec.topology import Backends, RolloutLayout, Stability, TrainerLayout, WeightSync

SCHEMA_VERSION = 1


class CheckpointConfig(Contract):
    """Checkpoint settings with resolved paths."""

    directory: VolumePath
    """The run's own folder: step folders, metrics, exports, report."""
    every_steps: PositiveInt
    keep: PositiveInt
    export_every_steps: PositiveInt | None = None
    """Earlier operators do not say it."""
    load_from: VolumePath | None
    export_formats: tuple[Literal["bf16", "fp8", "int4"], ...]


class Ranks(Contract):
    """Processes of the run as planned."""

    placement: Literal["colocated", "split"]
    accelerator: str
    nodes: PositiveInt
    """Worker pods in all."""
    slots_per_node: PositiveInt
    """GPUs of a worker pod; processes for accelerator cpu."""
    trainer_ranks: PositiveInt
    data_parallel: PositiveInt
    engines: PositiveInt
    slots_per_engine: PositiveInt
    trainer_nodes: PositiveInt
    rollout_nodes: NonNegativeInt
    """Nodes that only serve; 0 when colocated."""


class RunConfig(Contract):
    """Everything the driver and its actors need; no pod fills in a default."""

    schema_version: Literal[1] = 1
    job_name: str
    namespace: str
    job_uid: str
    trained: dict[str, Any] | None = None
    """What the result follows from (`trained.trained_document`), for the run folder. None from an operator of an earlier version."""
    model_path: VolumePath
    """BF16/FP16/FP32 Hugging Face folder the trainer loads."""
    reference_path: VolumePath
    """Hugging Face folder of the KL reference."""
    rollout_path: VolumePath
    """Folder the engine loads: converted (with manifest.json), or the source itself."""
    shape: ModelShape
    precision: Precision
    rollout_format: WeightFormat
    training_format: WeightFormat
    data: Data
    algorithm: Algorithm
    optimizer: Optimizer
    sampling: Sampling
    episode: Episode = Episode()
    """Earlier operators do not say it: a single turn."""
    evaluation: Evaluation | None
    ranks: Ranks
    trainer: TrainerLayout
    rollout: RolloutLayout
    backends: Backends
    weight_sync: WeightSync
    checkpoint: CheckpointConfig
    stability: Stability
    tracking: Tracking
    progress: ProgressReports
    refill_steps: PositiveInt
    """Steps of progress after which in-attempt recovery budgets refill."""
    stall_seconds: PositiveInt = 1800
    """How long nothing may move; an engine or a trainer's ranks are given up after half of it. Earlier operators do not say it."""


class LiveSettings(Contract):
    """What of RunConfig takes effect at once when it is edited.

    An attempt begins with what the spec said then; RunConfig keeps what the job was first given, so that an edit of these makes no
    other pods, which a queue would admit anew.
    """

    steps: PositiveInt
    stability: Stability
    refill_steps: PositiveInt
    stall_seconds: PositiveInt

    @classmethod
    def of(cls, config: RunConfig) -> "LiveSettings":
        """Return those of a RunConfig."""
        return cls(
            steps=config.algorithm.steps,
            stability=config.stability,
            refill_steps=config.refill_steps,
            stall_seconds=config.stall_seconds,
        )

    def put_into(self, config: RunConfig) -> RunConfig:
        """Return a RunConfig with these."""
        algorithm = config.algorithm.model_copy(update={"steps": self.steps})
        more = {"stability": self.stability, "refill_steps": self.refill_steps, "stall_seconds": self.stall_seconds}
        return config.model_copy(update={"algorithm": algorithm, **more})


class ConvertConfig(Contract):
    """One content-addressed conversion (or, with format bf16, a dequantisation)."""

    schema_version: Literal[1] = 1
    source: ModelSource
    """Resolved by the pod to a folder; downloads are kept in source.cache."""
    target: VolumePath
    """Final folder; work goes on in TARGET.partial beside it until the manifest is written."""
    format: WeightFormat
    fingerprint: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Of the source, from the inspection; checked again before publishing."""
    volume_identity: str = ""
    """The inspection's volume_identity: the fingerprint cannot be taken again without it."""
    content_key: str = Field(pattern=r"^[0-9a-f]{64}$")
    workers: PositiveInt
    """Completions of the Indexed Job; worker i takes shards i, i + workers, ..."""
    threads: PositiveInt | None
    max_relative_rms_error: float | None
    """Of a conversion by hand; a job's limit is its own, and compared by the operator: the conversion is shared."""
    verify: ConversionVerify | None = None
    """Without its maxKl, which is each job's own: the conversion is shared. None for what is not served."""


class Preflight(Contract):
    """What the inspection checks besides the model, before anything is converted and any cluster is made."""

    job_name: str
    namespace: str
    job_uid: str
    trained: dict[str, Any]
    """What the result follows from (`trained.trained_document`)."""
    data: Data
    seed: NonNegativeInt
    sampling: Sampling
    episode: Episode = Episode()
    evaluation: Evaluation | None
    rollout: RolloutLayout
    checkpoint: CheckpointConfig
    backends: Backends | None
    """None where the workers run another image than the inspection: it cannot know what that holds."""
    accelerator: str | None = None
    """Of the workers; earlier operators do not say it, nor the next three."""
    trainer: TrainerLayout | None = None
    optimizer: Optimizer | None = None
    precision: Precision | None = None
    imports_reward: bool
    """Whether a reward function can be imported here as on the head: same image, same environment."""
    imports_episode: bool = False
    """The same of what `episode` names, which the head and the engines' pods import."""


class InspectConfig(Contract):
    """What the inspect Job reads; it downloads remote sources first."""

    schema_version: Literal[1] = 1
    source: ModelSource
    free_space_at: VolumePath | None = None
    """Folder whose volume's free bytes the inspection reports."""
    volume_identity: str = ""
    """Identity of the source volume (claim name and namespace), part of the fingerprint."""
    preflight: Preflight | None = None
    """None for a KL reference, of which only the model is looked at."""
