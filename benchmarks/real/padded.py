"""The real model with every width a multiple of 128: the same function, which a block-FP8 or INT4 kernel can serve.

Hidden 576 -> 768, 9 -> 12 heads, 3 -> 4 KV heads, zeros everywhere they are new. A norm over 768 channels divides by 768 instead of
576, so its weight is multiplied by sqrt(3/4) and its epsilon by 3/4. Zeros never raise an absolute maximum: codes and scales are those
of the narrow weights with a tail of zeros.
"""

import json
import math
import shutil
from pathlib import Path

import torch
from torch import Tensor

from lprl_workload.hf.folder import read_folder
from lprl_workload.io.tensor_file import save_tensors

HIDDEN, HEADS, KV_HEADS, HEAD_DIM = 768, 12, 4, 64
ROWS = {"q_proj": HEADS * HEAD_DIM, "k_proj": KV_HEADS * HEAD_DIM, "v_proj": KV_HEADS * HEAD_DIM, "o_proj": HIDDEN, "down_proj": HIDDEN}
"""Rows of the modules whose outputs grow; the others keep theirs."""


def _wide(name: str, tensor: Tensor, narrow: int) -> Tensor:
    """Return `tensor` with zeros appended, norms rescaled; `narrow` is the hidden size it comes from."""
    module = name.split(".")[-2]
    if tensor.ndim == 1:
        scaled = tensor.float() * math.sqrt(narrow / HIDDEN)
        return torch.cat([scaled, scaled.new_zeros(HIDDEN - narrow)]).to(tensor.dtype)
    columns = {"o_proj": HEADS * HEAD_DIM, "down_proj": tensor.shape[1]}.get(module, HIDDEN)
    wide = tensor.new_zeros(ROWS.get(module, tensor.shape[0]), columns)
    wide[: tensor.shape[0], : tensor.shape[1]] = tensor
    return wide


def write_padded(source: Path, target: Path) -> None:
    """Write the wide form of the Llama folder `source`, tokenizer included, into the folder `target`, which is made."""
    target.mkdir(parents=True)
    for path in source.iterdir():
        if path.suffix != ".safetensors" and path.is_file():
            shutil.copyfile(path, target / path.name)
    config = json.loads((source / "config.json").read_text())
    narrow = config["hidden_size"]
    save_tensors({name: _wide(name, t, narrow) for name, t in read_folder(source)}, target / "model.safetensors", metadata={"format": "pt"})
    config |= {"hidden_size": HIDDEN, "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS}
    config["rms_norm_eps"] = config["rms_norm_eps"] * narrow / HIDDEN
    (target / "config.json").write_text(json.dumps(config, indent=2) + "\n")
