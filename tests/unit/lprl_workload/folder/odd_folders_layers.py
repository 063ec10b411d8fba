"""Odd model folders: tied heads, layers beyond those that are trained, adapters, fused experts."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from tests.unit.lprl_workload.folder.odd_folders import (
    EMBEDDING,
    FIRST,
    HEAD,
    NORM,
    SECOND,
    Change,
    Tensors,
    add,
    of,
    save,
    set_config,
    whole,
    without,
)
from torch import Tensor


def adapter_beside_single(folder: Path) -> Tensors:
    tensors = whole(folder)
    add(folder, "adapter_model.safetensors", {"lora_A": torch.ones(2, 4)})
    return tensors


def tied(folder: Path) -> Tensors:
    set_config(folder, tie_word_embeddings=True)
    return whole(folder, without(of(folder), HEAD))


def tied_with_equal_head(folder: Path) -> Tensors:
    set_config(folder, tie_word_embeddings=True)
    tensors = of(folder)
    whole(folder, tensors | {HEAD: tensors[EMBEDDING].clone()})
    return without(tensors, HEAD)


def tied_with_equal_head_in_a_shard_of_its_own(folder: Path) -> Tensors:
    set_config(folder, tie_word_embeddings=True)
    tensors = of(folder)
    rest = without(tensors, HEAD)
    save(folder, {FIRST: rest, SECOND: {HEAD: tensors[EMBEDDING].clone()}}, dict.fromkeys(rest, FIRST) | {HEAD: SECOND})
    return rest


def rotary_tables(folder: Path) -> Tensors:
    tensors = of(folder)
    whole(folder, tensors | {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": torch.ones(8) for i in range(2)})
    return tensors


def cache_scales(folder: Path) -> Tensors:
    tensors = of(folder)
    scales = {f"model.layers.{i}.self_attn.{leaf}": torch.ones(1) for i in range(2) for leaf in ("k_scale", "v_proj.output_scale")}
    whole(folder, tensors | scales)
    return tensors


def wide_norm(folder: Path) -> Tensors:
    tensors = of(folder)
    return whole(folder, tensors | {NORM: tensors[NORM].float()})


def promised_layers_absent(folder: Path) -> Tensors:
    set_config(folder, num_nextn_predict_layers=1)
    return of(folder)


def mtp(tensors: Tensors) -> Tensors:
    """The multi-token-prediction layer of a DeepSeek-V3 of two layers, whole."""
    layer = {n.replace("layers.1.", "layers.2."): t.clone() for n, t in tensors.items() if "layers.1." in n}
    norms = {f"model.layers.2.{name}.weight": torch.ones(64) for name in ("enorm", "hnorm", "shared_head.norm")}
    shared = {
        "model.layers.2.embed_tokens.weight": tensors[EMBEDDING].clone(),
        "model.layers.2.shared_head.head.weight": tensors[HEAD].clone(),
    }
    return layer | norms | shared | {"model.layers.2.eh_proj.weight": torch.ones(64, 128)}


def further_layer(folder: Path) -> Tensors:
    """A multi-token-prediction layer that config.json promises: copied by conversions, not trained."""
    set_config(folder, num_nextn_predict_layers=1)
    tensors = of(folder)
    return whole(folder, tensors | mtp(tensors))


def further_layer_without_shared_tensors(folder: Path) -> Tensors:
    """Engines take embedding and head of the model where the layer has none of its own."""
    set_config(folder, num_nextn_predict_layers=1)
    tensors = of(folder)
    own = {n: t for n, t in mtp(tensors).items() if "embed_tokens" not in n and "shared_head.head" not in n}
    return whole(folder, tensors | own)


def further_layer_with(how: Callable[[Tensors], Tensors], promised: int = 1) -> Change:
    """A multi-token-prediction layer that is not what it should be."""

    def change(folder: Path) -> None:
        set_config(folder, num_nextn_predict_layers=promised)
        tensors = of(folder)
        whole(folder, tensors | how(mtp(tensors)))

    return change


def adapter_settings_left(folder: Path) -> Tensors:
    """The settings of an adapter that was merged (or whose weights are pickled) beside the model."""
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": "base"}))
    return of(folder)


def adapter_with_settings(folder: Path) -> Tensors:
    tensors = adapter_beside_single(folder)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    return tensors


def fused_experts(folder: Path) -> Tensors:
    tensors = of(folder)
    whole(folder, fuse(tensors))
    return tensors


def fuse(tensors: Tensors, transposed: bool = False) -> Tensors:
    """Experts of every layer in the two 3-D tensors of transformers 5."""
    out = {n: t for n, t in tensors.items() if ".experts." not in n}
    for layer in range(2):
        base = f"model.layers.{layer}.mlp.experts."
        if f"{base}0.up_proj.weight" not in tensors:
            continue

        def stack(part: str, base: str = base) -> Tensor:
            return torch.stack([tensors[f"{base}{e}.{part}.weight"] for e in range(4)])

        out[f"{base}gate_up_proj"] = torch.cat([stack("gate_proj"), stack("up_proj")], dim=1)
        out[f"{base}down_proj"] = stack("down_proj")
        if transposed:
            out |= {f"{base}{part}": out[f"{base}{part}"].transpose(1, 2).contiguous() for part in ("gate_up_proj", "down_proj")}
    return out
