"""docs/slime-flags.md: every field path exists, and every flag and variable of the scripts has a row."""

import re
from pathlib import Path
from typing import Any

import pytest

from lprl_api.catalog.presets import PRESETS, preset_manifest
from lprl_api.crd.generate import schema

TABLE = (Path(__file__).parents[3] / "docs" / "slime-flags.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip().strip("|").split("|")]
    for line in TABLE.splitlines()
    if line.startswith("| ") and not line.startswith("| slime")
]
FIELDS = sorted({path for row in ROWS for path in re.findall(r"`([a-z]\w*(?:\.\w+)+)`", " ".join(row[1:]))})
SCRIPT_FLAGS = [
    "hf-checkpoint",
    "ref-load",
    "load",
    "save",
    "save-interval",
    "prompt-data",
    "input-key",
    "label-key",
    "apply-chat-template",
    "rollout-shuffle",
    "rm-type",
    "num-rollout",
    "rollout-batch-size",
    "n-samples-per-prompt",
    "rollout-max-response-len",
    "rollout-temperature",
    "global-batch-size",
    "num-steps-per-rollout",
    "balance-data",
    "over-sampling-batch-size",
    "dynamic-sampling-filter-path",
    "eval-interval",
    "eval-prompt-data",
    "n-samples-per-eval-prompt",
    "eval-max-response-len",
    "eval-top-p",
    "tensor-model-parallel-size",
    "sequence-parallel",
    "pipeline-model-parallel-size",
    "decoder-last-pipeline-num-layers",
    "context-parallel-size",
    "expert-model-parallel-size",
    "expert-tensor-parallel-size",
    "recompute-granularity",
    "recompute-method",
    "recompute-num-layers",
    "use-dynamic-batch-size",
    "max-tokens-per-gpu",
    "moe-enable-deepep",
    "moe-token-dispatcher-type",
    "transformer-impl",
    "bf16",
    "fp8-format",
    "fp8-recipe",
    "fp8-param-gather",
    "advantage-estimator",
    "use-kl-loss",
    "kl-loss-coef",
    "kl-loss-type",
    "entropy-coef",
    "eps-clip",
    "eps-clip-high",
    "use-tis",
    "optimizer",
    "lr",
    "lr-decay-style",
    "weight-decay",
    "adam-beta1",
    "adam-beta2",
    "optimizer-cpu-offload",
    "overlap-cpu-optimizer-d2h-h2d",
    "use-precision-aware-optimizer",
    "use-wandb",
    "wandb-project",
    "wandb-group",
    "wandb-key",
    "rollout-num-gpus-per-engine",
    "sglang-mem-fraction-static",
    "sglang-cuda-graph-bs",
    "sglang-expert-parallel-size",
    "sglang-ep-size",
    "sglang-server-concurrency",
    "attention-dropout",
    "hidden-dropout",
    "accumulate-allreduce-grads-in-fp32",
    "attention-softmax-in-fp32",
    "attention-backend",
    "no-check-for-nan-in-loss-and-grad",
    "update-weight-buffer-size",
    "actor-num-nodes",
    "actor-num-gpus-per-node",
    "colocate",
    "model-dir",
    "save-dir",
    "strategy",
    "block-size",
    "max-workers",
    "address",
    "runtime-env-json",
]
VARIABLES = [
    "NVTE_FP8_BLOCK_SCALING_FP32_SCALES",
    "OPEN_TRAINING_INT4_FAKE_QAT_FLAG",
    "OPEN_TRAINING_INT4_GROUP_SIZE",
    "CUDA_DEVICE_MAX_CONNECTIONS",
    "NCCL_NVLS_ENABLE",
    "NVSHMEM_DISABLE_NCCL",
    "NCCL_TIMEOUT_MS",
    "no_proxy",
    "MASTER_ADDR",
    "PYTHONPATH",
    "PYTHONUNBUFFERED",
    "RUNTIME_ENV_JSON",
]


def spec_node(path: str) -> dict[str, Any] | None:
    node = schema()["properties"]["spec"]
    for part in path.split("."):
        node = node.get("properties", {}).get(part)
        if node is None:
            return None
    return node


@pytest.mark.parametrize("path", FIELDS)
def test_field_exists(path: str) -> None:
    assert spec_node(path) is not None


def test_field_paths_are_read_from_the_table() -> None:
    assert len(FIELDS) > 70 and spec_node("algorithm.nonsense") is None


@pytest.mark.parametrize("name", [*(f"--{flag}" for flag in SCRIPT_FLAGS), *VARIABLES])
def test_flag_has_a_row(name: str) -> None:
    rows = [row for row in ROWS if f"`{name}`" in row[0]]
    assert len(rows) == 1
    assert re.findall(r"`[a-z]\w*\.", rows[0][1]) or rows[0][2].startswith("implied")


@pytest.mark.parametrize("name", PRESETS)
def test_presets_use_fields_of_the_table_only(name: str) -> None:
    """A preset says nothing that slime's scripts do not."""

    def leaves(value: Any, path: str) -> list[str]:
        if isinstance(value, dict):
            return [leaf for key, child in value.items() for leaf in leaves(child, f"{path}.{key}" if path else key)]
        return [path]

    known = (
        *FIELDS,
        "topology.accelerator",
        "model.source",
        "volumes",
        "conversion",
        "backends",
        "podTemplate.workers.env",
        "evaluation.sampling.temperature",
    )
    used = leaves(preset_manifest(name)["spec"], "")
    assert [path for path in used if not any(path == k or path.startswith(f"{k}.") for k in known)] == []
