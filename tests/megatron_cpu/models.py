"""Small real models of transformers with random weights (norms included), and what transformers says of samples."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from tests.zoo.tiny import save, tiny_model
from tests.zoo.trained import published_names
from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5RMSNorm
from transformers.models.qwen3_5_moe.modeling_qwen3_5_moe import Qwen3_5MoeRMSNorm
from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextRMSNorm

from lprl_api.model.config_file import shape_of
from lprl_api.model.model_shape import ModelShape
from lprl_fixtures.architectures import ARCHITECTURES, Architecture, model_config
from lprl_fixtures.shape import model_shape
from lprl_workload.episode import Float32, TrainSample, token_ids
from lprl_workload.folder.class_model import class_of, configuration
from lprl_workload.folder.config import read_config
from lprl_workload.hf.model import model_classes
from lprl_workload.hf.naming import naming_of
from lprl_workload.train.megatron.mapping import Mapping as Parts
from lprl_workload.train.megatron.stages import Stages
from lprl_workload.train.mesh import TrainMesh

VOCAB = 70


BY_CLASS = (
    "glm4_moe", "glm4_moe_lite", "kimi_k25", "qwen3_next", "qwen3_5", "qwen3_5_text", "qwen3_5_moe_text", "deepseek_v32", "glm_moe_dsa",
)  # fmt: skip
"""Families without a table of their own, by model_type."""
GROUPED = {"linear_num_value_heads": 8}
"""Two heads of values to one of keys, as the published Qwen3.5 have."""


CHOOSING = {"index_topk": 8, "index_n_heads": 16}
"""An indexer that leaves keys out even of the short samples here."""
SHARING = CHOOSING | {"indexer_types": ["full", "shared", "full", "shared"]}
"""Layers that take the choice of the one before."""


def write_model(folder: Path, architecture: Architecture | str, layers: int = 4, **changes: Any) -> ModelShape:
    """Save a model of 4 heads in 2 groups unless `changes` (of config.json) say otherwise; returns its shape."""
    if architecture in BY_CLASS:
        return write_by_class(folder, architecture, {"vocab_size": VOCAB, "num_hidden_layers": layers, **changes})
    assert architecture in ARCHITECTURES
    document = model_config(architecture, "demo", VOCAB, 0, 1) | {"num_hidden_layers": layers} | changes
    config_class, model_class = model_classes(model_shape(document).family)
    torch.manual_seed(0)
    model = model_class._from_config(config_class.from_dict(document), dtype=torch.float32)
    for name, parameter in model.named_parameters():
        drawn = torch.randn(parameter.shape)
        parameter.data = (1 + 0.1 * drawn if "norm" in name else 0.08 * drawn).to(torch.bfloat16)
    model.to(torch.bfloat16)
    _steer(model)
    model.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(document))
    return model_shape(document)


def _steer(model: Any) -> None:
    """Give routers correction biases that matter."""
    for module in model.modules():
        if hasattr(module, "e_score_correction_bias"):
            module.e_score_correction_bias = torch.nn.Buffer(0.1 * torch.randn(module.e_score_correction_bias.shape))


def _shift(model: Any) -> None:
    """Take 1 off the norms whose weight is kept less 1: twice as large activations make Adam's third step go by float32's last bits."""
    for module in model.modules():
        if isinstance(module, Qwen3_5RMSNorm | Qwen3_5MoeRMSNorm | Qwen3NextRMSNorm):
            module.weight.data -= 1.0


def write_by_class(folder: Path, model_type: str, changes: dict[str, Any]) -> ModelShape:
    """Save a small model of a class, under the names it is published with; returns its shape."""
    model = tiny_model(model_type, changes)
    torch.manual_seed(0)
    _steer(model)
    _shift(model)
    published_names(save(model, folder))
    return shape_of(read_config(folder), "config.json")


def samples(count: int = 6) -> list[TrainSample]:
    """Return samples of several lengths: groups that share a prompt, and one that shares it with nobody."""
    draw, found = np.random.default_rng(3), []
    prompt = draw.integers(3, VOCAB, 6).tolist()
    for number in range(count):
        mine = prompt if number < count - 1 else draw.integers(3, VOCAB, 3).tolist()
        drawn = draw.integers(3, VOCAB, 2 + 3 * (number % 3)).tolist()
        mask = np.arange(len(mine) + len(drawn)) >= len(mine)
        nothing = np.zeros(len(drawn), np.float32)
        found.append(TrainSample(token_ids(mine + drawn), mask, nothing, nothing))
    return found


def reference_logprobs(folder: Path, of: Sequence[TrainSample], temperature: float) -> list[Float32]:
    """Return what transformers says, in float32, one sample at a time."""
    document = read_config(folder)
    model = class_of(document, configuration(document)).from_pretrained(folder, dtype=torch.float32).eval()
    found = []
    for sample in of:
        with torch.no_grad():
            logits = model(torch.tensor(sample.ids[None], dtype=torch.int64)).logits[0, :-1]
        logp = torch.log_softmax(logits / temperature, dim=-1)
        chosen = logp.gather(1, torch.tensor(sample.ids[1:, None], dtype=torch.int64))[:, 0]
        found.append(chosen.numpy()[sample.mask[1:]])
    return found


def is_beside(name: str) -> bool:
    """Return whether a tensor of a whole model is none of its language model's."""
    return any(part in name for part in ("vision", "visual", "projector"))


def tensors_of(folder: Path, shape: ModelShape) -> Mapping[str, tuple[int, ...]]:
    """Return every tensor that is trained of a folder's model, as the folder calls it, and its shape."""
    return Parts(shape, TrainMesh(), Stages((shape.layers,)), naming=naming_of(folder)).tensors


def stored(folder: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a folder."""
    return {name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()}
