"""Running the job: conversion, checkpoints, failures, volumes, tracking, pods."""

from typing import Annotated, Literal

from pydantic import Field

from lprl_api.base import Contract, Name, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, RelativePath
from lprl_api.kube_names import SUBDOMAIN_PATTERN, ObjectName
from lprl_api.spec.pod_settings import Resources
from lprl_api.spec.sources import DataFile, SecretKey, VolumePath


class ConversionVerify(Contract):
    """Texts on which the answers of the conversion that the engines serve are compared with the source's, before the run."""

    prompts: DataFile = Field(description="JSON lines or parquet with one text a row; every row from firstRow to lastRow is run twice.")
    prompt_key: str = Field("prompt", description="Column with the prompt: text or a list of chat messages. Default prompt.")
    response_key: str | None = Field(
        None,
        description="Column with the answer, as text; it alone counts then. Default: a last message of the assistant's.",
    )
    apply_chat_template: bool = Field(True, description="Render prompts with the tokenizer's chat template. Default true.")
    max_tokens: PositiveInt | None = Field(None, description="Leave longer texts out, tokens. Default: refuse those beyond the context.")
    sensitivity_texts: NonNegativeInt = Field(
        8, description="Texts, spread over the file, on which each layer in turn is left unconverted; 0 tells no layers apart. Default 8."
    )
    max_kl: PositiveFloat | None = Field(
        None, description="Fail the job when the mean KL(source || converted) per token is above this, nats. Default: report only."
    )


class Conversion(Contract):
    """Where low-precision checkpoints are made and kept, and with how many pods."""

    volume: Name = Field(description="Volume for converted models, an entry of spec.volumes. Immutable after start.")
    path: RelativePath = Field(
        "converted", description="Folder inside the volume; conversions are cached by content. Immutable after start. Default converted."
    )
    parallelism: PositiveInt = Field(4, description="Conversion pods at a time, each with a range of shards. Default 4.")
    threads: PositiveInt | None = Field(None, description="CPU threads of one pod. Default: its CPU limit.")
    max_relative_rms_error: PositiveFloat | None = Field(
        None, description="Refuse a conversion whose worst tensor's relative RMS error is above this. Default: report only."
    )
    verify: ConversionVerify | None = Field(
        None, description="Measure what the conversion does to the model's answers; one layer of each model in memory. Default: not."
    )
    resources: Resources = Field(Resources(), description="Resources of a conversion pod.")
    queue_name: Annotated[str, Field(min_length=1, max_length=63, pattern=SUBDOMAIN_PATTERN)] | None = Field(
        None, description="Kueue LocalQueue of inspection and conversion pods, such as one with CPUs only. Default: the job's own."
    )


class Checkpoint(Contract):
    """Training checkpoints and exports."""

    volume: Name = Field(description="Volume for checkpoints, an entry of spec.volumes. Immutable after start.")
    path: RelativePath = Field(
        "checkpoints", description="Folder inside the volume; the job's name is appended. Immutable after start. Default checkpoints."
    )
    every_steps: PositiveInt = Field(
        20, description="Checkpoint every so many steps, and at the end. An edit takes effect with the next attempt. Default 20."
    )
    keep: PositiveInt = Field(3, description="Newest checkpoints kept. An edit takes effect with the next attempt. Default 3.")
    export_every_steps: PositiveInt | None = Field(
        None,
        description="Keep a BF16 Hugging Face folder in the checkpoint of every so many steps, a multiple of everySteps; the last one "
        "always has it. An edit takes effect with the next attempt. Default: only the last.",
    )
    load_from: VolumePath | None = Field(
        None, description="Checkpoint to start from when the job has none of its own. Immutable after start. Default none."
    )
    export_formats: tuple[Literal["bf16", "fp8", "int4"], ...] = Field(
        ("bf16",), description="Hugging Face folders written at the end. Default [bf16]."
    )


class FailurePolicy(Contract):
    """Restarts and time limits."""

    max_restarts: NonNegativeInt = Field(3, description="New attempts before the job fails; refills as steps advance. Default 3.")
    backoff_seconds: NonNegativeInt = Field(30, description="Delay before a new attempt, doubled each time. Default 30.")
    stall_seconds: PositiveInt = Field(
        1800,
        description="A run in which nothing moved for this long gets a new attempt, whether or not its driver reports; "
        "a trainer rank or engine that stands still for half of it is replaced. Default 1800.",
    )
    unreachable_node_seconds: PositiveInt = Field(
        600, description="A pod on an unreachable node counts as gone after this long. Default 600."
    )
    provision_timeout_seconds: PositiveInt | None = Field(
        None,
        description="Start a new attempt when the cluster is not ready after this long. Default: wait (queues may be long).",
    )
    refill_steps: PositiveInt = Field(10, description="Steps of progress that refill the restart budget. Default 10.")


class Volume(Contract):
    """A volume mounted into every pod of the job at /volumes/NAME."""

    persistent_volume_claim: ObjectName = Field(
        description="Claim in the job's namespace (locally: a folder of this name under --volumes). Immutable once a driver has begun."
    )
    read_only: bool = Field(False, description="Mount read-only. Default false.")


class Mlflow(Contract):
    """MLflow tracking."""

    tracking_uri: str = Field(max_length=2048, description="Address of the tracking server.")
    experiment: str = Field("lprl", description="Experiment name. Default lprl.")
    token_secret: SecretKey | None = Field(None, description="Secret key with MLFLOW_TRACKING_TOKEN. Default none.")


class Wandb(Contract):
    """Weights & Biases tracking."""

    project: str = Field(max_length=128, description="Project.")
    entity: str | None = Field(None, description="Team or user. Default: the key's own.")
    group: str | None = Field(None, description="Run group. Default: the job's name.")
    base_url: str | None = Field(None, max_length=2048, description="Address of a self-hosted server. Default none.")
    mode: Literal["online", "offline"] = Field("online", description="online or offline. Default online.")
    api_key_secret: SecretKey | None = Field(None, description="Secret key with WANDB_API_KEY. Default none.")


class Tracking(Contract):
    """Where metrics go beside metrics.jsonl, which is always written."""

    tensorboard: bool = Field(True, description="Write TensorBoard event files beside the checkpoints. Default true.")
    prometheus_port: Annotated[int, Field(ge=1024, le=65535)] | None = Field(
        None, description="Serve Prometheus metrics of the driver on this port. Default: off locally, 9464 rendered in pods."
    )
    mlflow: Mlflow | None = Field(None, description="MLflow. Default none.")
    wandb: Wandb | None = Field(None, description="Weights & Biases. Default none.")


class ProgressReports(Contract):
    """How often the driver reports."""

    interval_seconds: NonNegativeFloat = Field(
        15.0,
        description="Seconds between progress reports; checkpoints, trouble, start and end are told at once. Default 15.",
    )
