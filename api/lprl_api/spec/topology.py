"""Where the job runs: nodes, parallel layout, engines, backends."""

from typing import Annotated, Literal

from pydantic import Field

from lprl_api.base import INT64_MAX, Contract, Devices, Fraction, Nodes, NonNegativeFloat, ParallelSize, PositiveInt


class TrainerLayout(Contract):
    """Parallel layout of the trainer (Megatron terms)."""

    tensor: ParallelSize = Field(1, description="Tensor-parallel size. Default 1.")
    pipeline: ParallelSize = Field(1, description="Pipeline-parallel size. Default 1.")
    virtual_pipeline: ParallelSize = Field(
        1, description="Model chunks of a pipeline stage, count: stages take turns at them, and wait less for each other. Default 1."
    )
    context: ParallelSize = Field(1, description="Context-parallel size. Default 1.")
    expert: ParallelSize = Field(1, description="Expert-parallel size. Default 1.")
    expert_tensor: ParallelSize = Field(1, description="Tensor-parallel size inside an expert. Default 1.")
    sequence_parallel: bool = Field(False, description="Shard norms and residuals over the tensor group; needs tensor > 1. Default false.")
    last_stage_layers: PositiveInt | None = Field(
        None, description="Layers on the last pipeline stage when layers do not divide evenly. Default: even split."
    )
    recompute: Literal["none", "selective", "full"] = Field("full", description="Activation recomputation. Default full.")
    recompute_layers: PositiveInt = Field(1, description="Layers per recomputed unit when recompute is full. Default 1.")
    max_tokens_per_gpu: PositiveInt = Field(8192, description="Tokens per micro-batch and rank (dynamic batching). Default 8192.")
    attention_backend: Literal["auto", "flash", "fused", "unfused"] = Field("auto", description="Attention kernels. Default auto.")
    attention_softmax_in_fp32: bool = Field(True, description="Softmax of attention in FP32. Default true.")
    attention_dropout: Annotated[float, Field(ge=0, lt=1)] = Field(0.0, description="Attention dropout. Default 0.")
    hidden_dropout: Annotated[float, Field(ge=0, lt=1)] = Field(0.0, description="Hidden dropout. Default 0.")
    deep_ep: bool = Field(False, description="DeepEP token dispatcher (flex) for experts. Default false.")
    nodes: Nodes | None = Field(None, description="Nodes of the trainer under split placement. Default: planned.")


class RolloutLayout(Contract):
    """Layout of the rollout engines."""

    gpus_per_engine: ParallelSize = Field(1, description="GPUs of one engine. Default 1.")
    tensor: ParallelSize | None = Field(None, description="Tensor-parallel size inside an engine. Default gpusPerEngine.")
    expert: ParallelSize = Field(1, description="Expert-parallel size inside an engine. Default 1.")
    memory_fraction: Fraction = Field(0.7, description="Share of device memory for weights and KV cache. Default 0.7.")
    cuda_graph_batch_sizes: tuple[PositiveInt, ...] = Field((), description="Batch sizes captured as CUDA graphs. Default: the engine's.")
    max_concurrency: PositiveInt | None = Field(None, description="Requests in flight per engine. Default: the engine's.")
    context_length: PositiveInt | None = Field(None, description="Longest sequence served, tokens. Default: the model's.")
    nodes: Nodes | None = Field(None, description="Nodes of the rollout engines under split placement. Default: planned.")
    health_check_seconds: PositiveInt = Field(30, description="Interval of engine health checks, seconds. Default 30.")


class Topology(Contract):
    """Nodes and layouts."""

    placement: Literal["colocated", "split"] = Field(
        "colocated", description="Trainer and engines share the GPUs in turn, or have nodes of their own. Default colocated."
    )
    accelerator: str = Field("cpu", max_length=63, description="A row of the accelerator table; `cpu` for a laptop. Default cpu.")
    nodes: Nodes | Literal["auto"] = Field("auto", description="Worker nodes in all, or auto for the fewest that fit. Default auto.")
    gpus_per_node: Devices | None = Field(
        None, description="GPUs (worker processes when accelerator is cpu) per node. Default: the accelerator's, 1 for cpu."
    )
    trainer: TrainerLayout = Field(TrainerLayout(), description="Trainer layout.")
    rollout: RolloutLayout = Field(RolloutLayout(), description="Rollout layout.")


class Backends(Contract):
    """Implementations of the two sides."""

    trainer: Literal["torch", "megatron"] = Field("torch", description="torch (Hugging Face models) or megatron. Default torch.")
    rollout: Literal["torch", "sglang"] = Field("torch", description="torch (in-process) or sglang. Default torch.")


class WeightSync(Contract):
    """How new weights reach the engines."""

    transport: Literal["auto", "local", "cuda-ipc", "broadcast", "disk"] = Field(
        "auto", description="auto: local or cuda-ipc when colocated, broadcast (NCCL or gloo) when split. Default auto."
    )
    bucket_bytes: Annotated[int, Field(ge=1 << 16, le=INT64_MAX)] = Field(
        512 * 1024 * 1024, description="Largest bucket, bytes; bounds the staging memory. Default 536870912 (512 MiB)."
    )
    verify_every: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        50,
        description="Pushes from one full verification (a checksum of every tensor, a probe of every engine) to the next, count; the first "
        "push and the first after a recovery always get one. Default 50.",
    )


ABSOLUTE_LIMIT = 0.5
"""Of k3 and of logprob-diff alike. Single steps of a real model reach 0.30 and 0.45 in healthy runs (bf16/fp8); unmatched INT4 stays
above, and with a baseline as high no relative limit sees it (docs/precision/real/results.md, "The guard")."""


class Stability(Contract):
    """Guard on the training/rollout mismatch."""

    metric: Literal["k3", "logprob-diff"] = Field("k3", description="k3 KL estimate or mean |log-probability difference|. Default k3.")
    relative_limit: Annotated[float, Field(gt=1)] | None = Field(
        5.0, description="Limit as a multiple of the baseline, the median of the first baselineSteps. Default 5."
    )
    absolute_limit: NonNegativeFloat | None = Field(
        ABSOLUTE_LIMIT,
        description="Limit in the metric's own unit; the lower of the two limits holds, null switches this one off. Default 0.5: "
        "above every step of healthy runs of a real model in any precision pair, below unmatched INT4's.",
    )
    baseline_steps: PositiveInt = Field(5, description="Steps that make the baseline. Default 5.")
    patience: PositiveInt = Field(3, description="Consecutive steps over the limit before acting. Default 3.")
    action: Literal["warn", "correct", "hold", "rollback", "fallback-bf16"] = Field(
        "warn",
        description="warn: condition and event; correct: switch on TIS; hold: pause updates, resync, re-measure; "
        "rollback: last checkpoint before the drift, with TIS; fallback-bf16: serve BF16 from now on. Default warn.",
    )
