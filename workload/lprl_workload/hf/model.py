"""A transformers model from a folder's config.json: true architecture, uninitialised weights, one compute policy.

Compute policy, the same in trainer and engine so that their mismatch is the served format's alone: float32 arithmetic on
BF16-rounded (or dequantised) weights on a CPU, bfloat16 on a GPU, with the output head's product in float32 (head.py). Router
correction biases are float32 everywhere.
"""

from pathlib import Path
from typing import Any

import torch
import transformers

from lprl_api.errors import UserError
from lprl_api.model.known import text_section
from lprl_api.model.model_shape import ModelShape
from lprl_workload.folder.class_model import configuration
from lprl_workload.folder.config import read_config
from lprl_workload.folder.header import read_json
from lprl_workload.hf.by_class import build_by_class
from lprl_workload.hf.correction import keep_correction
from lprl_workload.hf.experts import EXPERTS, register_experts
from lprl_workload.hf.head import use_float32_head
from lprl_workload.hf.naming import named
from lprl_workload.hf.unfilled import unfilled

MODELS = {
    "llama": "Llama",
    "qwen2": "Qwen2",
    "qwen3": "Qwen3",
    "qwen3-moe": "Qwen3Moe",
    # Moonlight and Kimi-K2 publish this architecture (the latter under model_type kimi_k2, with the same fields).
    "deepseek-v3": "DeepseekV3",
}
"""Family -> how transformers' classes of it begin."""
NOT_FIELDS = ("auto_map", "quantization_config", "model_type", "architectures", "torch_dtype", "dtype", "transformers_version")


def model_classes(family: str) -> tuple[Any, Any]:
    """Return transformers' classes of a family: configuration, causal language model. Only their own modules are imported."""
    return getattr(transformers, f"{MODELS[family]}Config"), getattr(transformers, f"{MODELS[family]}ForCausalLM")


def compute_dtype(device: torch.device | str) -> torch.dtype:
    """Return the dtype of arithmetic on `device`: float32 on a CPU, bfloat16 elsewhere."""
    return torch.float32 if torch.device(device).type == "cpu" else torch.bfloat16


def model_config(folder: Path, shape: ModelShape) -> Any:
    """Return transformers' configuration of a folder's model, from its config.json; raises UserError naming the file."""
    if shape.family == "other":
        return configuration(dict(text_section(read_config(folder))) | {"tie_word_embeddings": shape.tied_embeddings})
    document = {k: v for k, v in text_section(read_json(folder / "config.json")).items() if k not in NOT_FIELDS}
    document["tie_word_embeddings"] = shape.tied_embeddings
    config_class, _ = model_classes(shape.family)
    try:
        return config_class.from_dict(document)
    except (TypeError, ValueError) as error:
        raise UserError(f"{folder / 'config.json'}: {error}", "restore the config.json the model was published with") from error


def build_model(folder: Path, shape: ModelShape, device: torch.device | str, dtype: torch.dtype | None = None) -> Any:
    """Return the causal language model of `folder`'s config.json in `dtype` (the device's own for None), weights uninitialised.

    No code of the folder runs (auto_map is ignored) and its quantization_config plays no part. Embeddings are tied where the
    shape says so. Returns a transformers PreTrainedModel in evaluation mode. Families without a table: see hf/by_class.py.
    """
    if shape.family == "other":
        return build_by_class(folder, shape.tied_embeddings, device, dtype or compute_dtype(device))
    _, model_class = model_classes(shape.family)
    config = model_config(folder, shape)
    register_experts()
    with unfilled(device):
        model = model_class._from_config(
            config, dtype=dtype or compute_dtype(device), attn_implementation="sdpa", experts_implementation=EXPERTS
        )
    model.tie_weights()
    use_float32_head(model)
    for module in model.modules():
        keep_correction(module)
    return named(model.eval(), folder)
