"""LowPrecisionRLJob: the resource a user writes."""

from typing import Annotated

from pydantic import Field

from lprl_api import names
from lprl_api.base import Contract, Name, NonNegativeInt, PositiveInt
from lprl_api.spec.algorithm import Algorithm, Data, Evaluation, Optimizer, Sampling
from lprl_api.spec.episode import Episode
from lprl_api.spec.operations import Checkpoint, Conversion, FailurePolicy, ProgressReports, Tracking, Volume
from lprl_api.spec.pod_settings import PodTemplate
from lprl_api.spec.precision import Precision
from lprl_api.spec.sources import ModelSource
from lprl_api.spec.topology import Backends, Stability, Topology, WeightSync


class Model(Contract):
    """The policy's starting weights."""

    shape: str | None = Field(
        None,
        max_length=63,
        description="A known shape (lprl plan --shapes lists them): plan before any pod runs. Default none.",
    )
    source: ModelSource = Field(description="Hugging Face model folder to start from; BF16, FP16, FP32, block FP8 or INT4.")
    reference: ModelSource | None = Field(None, description="KL reference policy. Default: the source.")


class LowPrecisionRLJobSpec(Contract):
    """Desired state of a low-precision RL run."""

    model: Model = Field(description="The policy's starting weights. Immutable after start.")
    precision: Precision = Field(Precision(), description="Training and rollout precision. Immutable after start.")
    conversion: Conversion = Field(
        description="Where low-precision checkpoints are made and kept. "
        "The place is immutable after start; the rest takes effect with the next attempt."
    )
    data: Data = Field(description="Training prompts and reward. Immutable after start.")
    algorithm: Algorithm = Field(description="RL objective and batch sizes. Immutable after start, but steps: they may be raised, at once.")
    optimizer: Optimizer = Field(Optimizer(), description="AdamW. Immutable after start.")
    sampling: Sampling = Field(Sampling(), description="How training responses are drawn. Immutable after start.")
    episode: Episode = Field(
        Episode(), description="From a prompt to a rewarded sequence: one response, tools, or a function of yours. Immutable after start."
    )
    evaluation: Evaluation | None = Field(
        None, description="Held-out evaluation. An edit takes effect with the next attempt. Default none."
    )
    topology: Topology = Field(Topology(), description="Nodes and layouts. Immutable after start.")
    backends: Backends = Field(Backends(), description="Trainer and rollout implementations. Immutable after start.")
    weight_sync: WeightSync = Field(
        WeightSync(), description="How new weights reach the engines. An edit takes effect with the next attempt."
    )
    checkpoint: Checkpoint = Field(
        description="Training checkpoints and exports. Their place is immutable after start; the rest takes effect with the next attempt."
    )
    stability: Stability = Field(Stability(), description="Guard on the training/rollout mismatch. An edit takes effect at once.")
    failure_policy: FailurePolicy = Field(FailurePolicy(), description="Restarts and time limits. An edit takes effect at once.")
    volumes: Annotated[dict[Name, Volume], Field(min_length=1, max_length=16)] = Field(
        description="Volumes by name; other fields refer to them. "
        "A claim can be corrected until a driver has begun, then it is immutable; readOnly takes effect with the next attempt."
    )
    tracking: Tracking = Field(Tracking(), description="Where metrics go. An edit takes effect with the next attempt.")
    progress: ProgressReports = Field(ProgressReports(), description="Progress reports. An edit takes effect with the next attempt.")
    pod_template: PodTemplate = Field(
        PodTemplate(),
        description="Merged into every pod of the job. An edit remakes pods that wait; a running attempt takes it with the next attempt.",
    )
    suspend: bool = Field(False, description="Checkpoint, then release the cluster; false resumes; at once. Default false.")
    active_deadline_seconds: PositiveInt | None = Field(
        None,
        description="Fail the job when it has been active this long, seconds; suspended time does not count. "
        "An edit takes effect at once. Default none.",
    )
    ttl_seconds_after_finished: NonNegativeInt | None = Field(
        None, description="Delete the job this long after it finished, seconds; an edit takes effect at once. Default: keep."
    )


class Metadata(Contract):
    """Name, namespace, labels.

    The part of ObjectMeta this project reads; parse.py keeps other keys out.
    """

    name: str = Field(min_length=1, max_length=names.MAX_NAME_LENGTH, pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$")
    namespace: str = "default"
    uid: str = "local"
    generation: int = 1
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    resource_version: str | None = None


class LowPrecisionRLJob(Contract):
    """A parsed manifest: metadata and spec (status is separate, see status.py)."""

    metadata: Metadata
    spec: LowPrecisionRLJobSpec
