"""Converted folders read without this project: E4M3 and INT4 from their bytes by the formats' own definitions, in float64."""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor


def e4m3(byte: int) -> float:
    """Return the value of an E4M3 byte: sign, 4 bits of exponent with bias 7, 3 of fraction; no infinities."""
    sign = -1.0 if byte & 0x80 else 1.0
    exponent, fraction = byte >> 3 & 15, byte & 7
    return sign * (fraction / 8 * 2.0**-6 if exponent == 0 else (1 + fraction / 8) * 2.0 ** (exponent - 7))


E4M3 = np.array([e4m3(byte) for byte in range(256)])


def fp8(codes: Tensor, scale: Tensor) -> Tensor:
    """Return BF16 values of block FP8."""
    values = E4M3[codes.view(torch.uint8).numpy()]
    wide = np.kron(scale.double().numpy(), np.ones((128, 128)))[: values.shape[0], : values.shape[1]]
    return torch.from_numpy((values * wide).astype(np.float32)).to(torch.bfloat16)


def int4(packed: Tensor, scale: Tensor, shape: Tensor) -> Tensor:
    """Return BF16 values of INT4 groups: eight codes to an int32, the first in the lowest bits, 8 added to each."""
    words = packed.numpy().astype(np.int64) & 0xFFFFFFFF
    rows, cols = (int(n) for n in shape)
    codes = np.stack([(words >> 4 * i & 15) - 8 for i in range(8)], axis=-1).reshape(rows, -1)[:, :cols]
    wide = np.repeat(scale.float().numpy(), cols // scale.shape[1], axis=1)
    return torch.from_numpy((codes * wide).astype(np.float32)).to(torch.bfloat16)


def plain(folder: Path, out: Path) -> set[str]:
    """Write a converted folder as a BF16 one; returns the names of the weights that had codes."""
    tensors = {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}
    found: dict[str, Tensor] = {}
    decoded = set()
    for name, tensor in tensors.items():
        module, _, leaf = name.rpartition(".")
        if leaf == "weight_packed":
            found[f"{module}.weight"] = int4(tensor, tensors[f"{module}.weight_scale"], tensors[f"{module}.weight_shape"])
            decoded.add(f"{module}.weight")
        elif leaf == "weight" and tensor.dtype == torch.float8_e4m3fn:
            found[name] = fp8(tensor, tensors[f"{module}.weight_scale_inv"])
            decoded.add(name)
        elif not (leaf.startswith("weight_") and (f"{module}.weight" in tensors or f"{module}.weight_packed" in tensors)):
            found[name] = tensor
    config = json.loads((folder / "config.json").read_text())
    config.pop("quantization_config")
    out.mkdir()
    (out / "config.json").write_text(json.dumps(config))
    save_file(found, out / "model.safetensors", metadata={"format": "pt"})
    return decoded
