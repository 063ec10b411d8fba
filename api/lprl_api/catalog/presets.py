"""The six presets: rows that carry the settings of slime's low-precision scripts, and the manifest of each.

A row deviates from the script it follows where the script's flags are illegal under our rules or lost something; `deviations`
says what and why, and `lprl init` prints it.
"""

import copy
from dataclasses import dataclass, field
from typing import Any, Literal

from lprl_api import names

GRAPH_SIZES = [1, 2, 4, 8, *range(16, 257, 8)]
NVSHMEM = {"NVSHMEM_DISABLE_NCCL": "1"}


@dataclass(frozen=True)
class Preset:
    """One row. Sizes are those of the published script unless `deviations` says otherwise."""

    name: str
    shape: str
    folder: str
    """Model folder on the volume `models`."""
    training: Literal["fp8", "int4-qat"]
    nodes: int
    gpus_per_node: int
    trainer: dict[str, Any]
    rollout: dict[str, Any]
    steps: int
    batch: tuple[int, int, int]
    """rolloutBatchSize, samplesPerPrompt, globalBatchSize."""
    reward: str
    response_tokens: int
    temperature: float
    evaluation: tuple[int, int, int, float]
    """everySteps, samplesPerPrompt, maxResponseTokens, topP."""
    accelerator: str = "H100-80GB"
    group_size: int = 128
    offload: bool = True
    tis: bool = True
    filter_groups: bool = False
    environment: dict[str, str] = field(default_factory=dict)
    check_for_nan: bool = True
    bucket_bytes: int | None = None
    deviations: tuple[str, ...] = ()


PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            "qwen3-4b-fp8",
            "qwen3-4b",
            "Qwen3-4B",
            "fp8",
            1,
            8,
            trainer={"tensor": 2, "sequenceParallel": True, "maxTokensPerGpu": 9216, "attentionBackend": "flash"},
            rollout={"gpusPerEngine": 2, "memoryFraction": 0.7},
            steps=3000,
            batch=(32, 8, 256),
            reward="deepscaler",
            response_tokens=8192,
            temperature=1.0,
            evaluation=(20, 16, 16384, 1.0),
            offload=False,
            tis=False,
            deviations=("precision.training fp8: the published script lost --fp8-format and --fp8-recipe and trains in BF16",),
        ),
        Preset(
            "qwen3-30b-a3b-fp8",
            "qwen3-30b-a3b",
            "Qwen3-30B-A3B",
            "fp8",
            2,
            8,
            trainer={"pipeline": 4, "expert": 4, "deepEp": True, "maxTokensPerGpu": 20480, "attentionBackend": "flash"},
            rollout={"gpusPerEngine": 8, "expert": 8, "memoryFraction": 0.6, "cudaGraphBatchSizes": GRAPH_SIZES},
            steps=200,
            batch=(16, 8, 128),
            reward="math",
            response_tokens=8192,
            temperature=1.0,
            evaluation=(20, 16, 16384, 1.0),
            environment={**NVSHMEM, "NCCL_TIMEOUT_MS": "36000000"},
            deviations=("topology.trainer.sequenceParallel false: published with tensor 1, where there is nothing to shard",),
        ),
        Preset(
            "qwen3-30b-a3b-int4",
            "qwen3-30b-a3b",
            "Qwen3-30B-A3B",
            "int4-qat",
            1,
            8,
            trainer={"tensor": 4, "expert": 8, "sequenceParallel": True, "maxTokensPerGpu": 8192, "attentionBackend": "flash"},
            rollout={"gpusPerEngine": 1, "memoryFraction": 0.7, "cudaGraphBatchSizes": GRAPH_SIZES},
            steps=100,
            batch=(32, 8, 256),
            reward="deepscaler",
            response_tokens=8192,
            temperature=0.8,
            evaluation=(10, 8, 16384, 0.7),
            environment=NVSHMEM,
        ),
        Preset(
            "moonlight-16b-a3b-int4",
            "moonlight-16b-a3b",
            "Moonlight-16B-A3B-Instruct",
            "int4-qat",
            1,
            4,
            trainer={"tensor": 2, "expert": 4, "sequenceParallel": True, "deepEp": True, "maxTokensPerGpu": 8192},
            rollout={"gpusPerEngine": 4, "expert": 4, "memoryFraction": 0.7, "cudaGraphBatchSizes": GRAPH_SIZES},
            steps=3000,
            batch=(128, 8, 256),
            reward="math",
            response_tokens=4096,
            temperature=0.8,
            evaluation=(20, 8, 4096, 0.7),
            tis=False,
            filter_groups=True,
            environment=NVSHMEM,
            deviations=(
                "topology.rollout.expert 4: published with tensor 4 alone, which cuts the 1408 channels of an expert into 352, "
                "no multiple of the group of 128; whole experts per GPU keep every group whole",
            ),
        ),
        Preset(
            "qwen3-235b-a22b-int4",
            "qwen3-235b-a22b",
            "Qwen3-235B-A22B",
            "int4-qat",
            8,
            8,
            trainer={
                "tensor": 4,
                "pipeline": 4,
                "context": 2,
                "expert": 16,
                "sequenceParallel": True,
                "lastStageLayers": 22,
                "maxTokensPerGpu": 16384,
                "attentionBackend": "flash",
            },
            rollout={"gpusPerEngine": 8, "expert": 8, "memoryFraction": 0.7, "cudaGraphBatchSizes": GRAPH_SIZES},
            steps=300,
            batch=(32, 8, 256),
            reward="deepscaler",
            response_tokens=8192,
            temperature=0.8,
            evaluation=(10, 16, 16384, 0.7),
            environment={"NCCL_TIMEOUT_MS": "360000000"},
            check_for_nan=False,
        ),
        Preset(
            "kimi-k2-thinking-int4",
            "kimi-k2-thinking",
            "Kimi-K2-Thinking",
            "int4-qat",
            32,
            8,
            trainer={
                "tensor": 8,
                "pipeline": 8,
                "context": 4,
                "expert": 32,
                "sequenceParallel": True,
                "lastStageLayers": 5,
                "maxTokensPerGpu": 16384,
                "attentionBackend": "flash",
            },
            rollout={"gpusPerEngine": 8, "expert": 8, "memoryFraction": 0.7, "maxConcurrency": 1024},
            steps=100,
            batch=(128, 8, 256),
            reward="math",
            response_tokens=16384,
            temperature=0.8,
            evaluation=(10, 16, 16384, 0.7),
            accelerator="H200-141GB",
            group_size=32,
            filter_groups=True,
            environment={"NCCL_TIMEOUT_MS": "360000000"},
            check_for_nan=False,
            bucket_bytes=2 << 30,
            deviations=("topology.accelerator H200-141GB: 594 GB of INT4 weights on 8 GPUs leave no cache on 80 GB GPUs",),
        ),
    )
}


def preset_manifest(name: str) -> dict[str, Any]:
    """Return the whole manifest of a preset, as `lprl init` writes it. Raises KeyError for an unknown name."""
    return manifest_of_preset(PRESETS[name])


def manifest_of_preset(row: Preset) -> dict[str, Any]:
    """Return the whole manifest of a row."""
    preset = copy.deepcopy(row)  # callers may change what they get
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": preset.name.replace(".", "-")},
        "spec": {
            "model": {"shape": preset.shape, "source": {"volume": "models", "path": preset.folder}},
            "precision": _precision(preset),
            "conversion": {"volume": "models", "path": "converted", "parallelism": 4},
            "data": {
                "prompts": {"volume": "data", "path": "dapo-math-17k/dapo-math-17k.jsonl"},
                "promptKey": "prompt",
                "labelKey": "label",
                "reward": {"type": preset.reward},
            },
            "algorithm": _algorithm(preset),
            "optimizer": {"learningRate": 1.0e-6, "weightDecay": 0.1, "beta1": 0.9, "beta2": 0.98, **_offload(preset)},
            "sampling": {"temperature": preset.temperature, "maxResponseTokens": preset.response_tokens},
            "evaluation": _evaluation(preset),
            "topology": {
                "placement": "colocated",
                "accelerator": preset.accelerator,
                "nodes": preset.nodes,
                "gpusPerNode": preset.gpus_per_node,
                "trainer": {**preset.trainer, "recompute": "full", "recomputeLayers": 1},
                "rollout": preset.rollout,
            },
            "backends": {"trainer": "megatron", "rollout": "sglang"},
            **({"weightSync": {"bucketBytes": preset.bucket_bytes}} if preset.bucket_bytes else {}),
            "checkpoint": {"volume": "checkpoints", "everySteps": 20, "exportFormats": ["bf16"]},
            "volumes": {claim: {"persistentVolumeClaim": claim} for claim in ("models", "data", "checkpoints")},
            "podTemplate": {"workers": {"env": _environment(preset)}},
        },
    }


def _precision(preset: Preset) -> dict[str, Any]:
    if preset.training == "fp8":
        return {"training": "fp8", "rollout": "fp8", "fp8": {"strategy": "block", "blockSize": [128, 128], "scaleFormat": "float32"}}
    return {"training": "int4-qat", "rollout": "int4", "int4": {"groupSize": preset.group_size, "scope": "routed-experts"}}


def _algorithm(preset: Preset) -> dict[str, Any]:
    prompts, samples, size = preset.batch
    return {
        "name": "grpo",
        "steps": preset.steps,
        "rolloutBatchSize": prompts,
        "samplesPerPrompt": samples,
        "globalBatchSize": size,
        "kl": {"coefficient": 0.0, "estimator": "low-var-kl", "placement": "loss", "measure": True},
        "clip": {"low": 0.2, "high": 0.28},
        **({"correction": {"type": "tis", "low": 0.0, "high": 2.0}} if preset.tis else {}),
        **({"dynamicSampling": {"enabled": True, "overSamplingBatchSize": 256}} if preset.filter_groups else {}),
        "checkForNan": preset.check_for_nan,
    }


def _offload(preset: Preset) -> dict[str, Any]:
    return {"cpuOffload": True, "overlapCpuTransfers": True, "precisionAware": True} if preset.offload else {}


def _evaluation(preset: Preset) -> dict[str, Any]:
    every, samples, tokens, top_p = preset.evaluation
    return {
        "everySteps": every,
        "prompts": {"volume": "data", "path": "aime-2024/aime-2024.jsonl"},
        "samplesPerPrompt": samples,
        "passAt": [1, samples],
        "sampling": {"temperature": preset.temperature, "topP": top_p, "maxResponseTokens": tokens},
    }


def _environment(preset: Preset) -> list[dict[str, str]]:
    values = {"CUDA_DEVICE_MAX_CONNECTIONS": "1", **preset.environment}
    return [{"name": name, "value": value} for name, value in values.items()]
