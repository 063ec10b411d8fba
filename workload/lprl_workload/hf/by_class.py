"""A model without a table, built by transformers' class of its config.json: what trainer and engines need of it.

Names, layout and what is quantised come from the class alone (folder/class_layout.py, quant/rule.py), so that trainer, engines and driver
agree whatever form a folder keeps its weights in.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lprl_api.errors import UserError
from lprl_api.model.known import text_section
from lprl_workload.folder.class_folder import layout_of_config
from lprl_workload.folder.class_layout import ClassLayout
from lprl_workload.folder.class_model import NoClass, class_of, configuration
from lprl_workload.folder.config import read_config
from lprl_workload.hf.by_position import take_temperatures
from lprl_workload.hf.correction import keep_correction
from lprl_workload.hf.experts import EXPERTS, are_usual, register_experts
from lprl_workload.hf.head import use_float32_head
from lprl_workload.hf.indexed import give_masks
from lprl_workload.hf.logits import BY_CLASS
from lprl_workload.hf.naming import named
from lprl_workload.hf.part_of_whole import part_of_whole
from lprl_workload.hf.served_attention import SERVED, register_served_attention
from lprl_workload.hf.slots import LAYOUT
from lprl_workload.hf.unfilled import unfilled


def build_by_class(folder: Path, tied: bool, device: torch.device | str, dtype: torch.dtype) -> Any:
    """Return the causal language model of a folder's config.json in `dtype`, weights uninitialised, without any dropout.

    Of a model that is a part of another (`text_config`) it is built by itself; `tied`: whether the head is the embedding.

    Experts are computed by ours where the class computes them the usual way, else by its own. Raises UserError.
    """
    register_experts()
    register_served_attention()
    how = {"dtype": dtype, "attn_implementation": SERVED, "experts_implementation": EXPERTS}
    try:
        model, layout = _built(read_config(folder), folder, tied, device, how)
    except NoClass as error:
        raise UserError(f"{folder}: {error}", "install the transformers release the model was published with") from error
    if not are_usual(model):
        model.set_experts_implementation("eager")
    model.tie_weights()
    use_float32_head(model)
    give_masks(model)
    take_temperatures(model)
    setattr(model, LAYOUT, layout)
    for module in model.modules():
        _without_chance(module)
        keep_correction(module)
    return model.eval()


def _built(
    document: Mapping[str, Any], folder: Path, tied: bool, device: torch.device | str, how: dict[str, Any]
) -> tuple[Any, ClassLayout]:
    """Return (model, layout of its checkpoint). Raises NoClass, and UserError."""
    text = dict(text_section(document)) | {"tie_word_embeddings": tied}
    config = configuration(text)
    try:
        model_class = class_of(text, config)
    except NoClass:
        if text_section(document) is document:
            raise
        whole = configuration(document)
        whole.tie_word_embeddings = tied
        return part_of_whole(class_of(document, whole), whole, layout_of_config(document, folder), device, **how)
    with unfilled(device):
        model = model_class._from_config(config, **how)
    setattr(model, BY_CLASS, True)
    return named(model, folder), layout_of_config(text, folder)


def _without_chance(module: nn.Module) -> None:
    """Take what is random in training out of a module: dropout, noise of routers."""
    if isinstance(module, nn.Dropout):
        module.p = 0.0
    for name, value in list(vars(module).items()):
        if isinstance(value, float) and ("dropout" in name or "jitter" in name):
            setattr(module, name, 0.0)
