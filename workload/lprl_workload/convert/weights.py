"""Reads a model folder weight by weight, whatever precision it is stored in: one logical `X.weight` at a time."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from lprl_api.errors import UserError
from lprl_api.model.formats import Bf16, WeightFormat
from lprl_workload.convert.files import CONFIG
from lprl_workload.folder.config import read_format
from lprl_workload.folder.header import read_json
from lprl_workload.folder.model import read_contents
from lprl_workload.folder.mxfp4 import BLOCKS, SCALES
from lprl_workload.folder.quantized import PARTNERS
from lprl_workload.quant.mxfp4 import decode
from lprl_workload.quant.scheme import dequantize, module_of, served_names
from lprl_workload.quant.select import is_fused

_EXPERT = re.compile(r"^(.+\.experts)\.(\d+)\.(gate|up|down)_proj\.weight$")


@dataclass(frozen=True, slots=True)
class StoredWeight:
    """One weight as it is stored: `parts` has its served tensors (one for high precision)."""

    name: str
    fmt: WeightFormat
    parts: dict[str, Tensor]

    @property
    def quantized(self) -> bool:
        """Whether it is stored as codes and scales."""
        return not isinstance(self.fmt, Bf16)

    def values(self, device: torch.device | str = "cpu") -> Tensor:
        """Return what an engine computes with: dequantised (on `device`, where codes and scales go), or the stored tensor there."""
        parts = {part: tensor.to(device) for part, tensor in self.parts.items()}
        if self.quantized:
            return dequantize(parts, module_of(self.name), self.fmt)
        return next(iter(parts.values()))


class ModelFolder:
    """A folder of safetensors, opened shard by shard on demand."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.index = read_contents(folder)
        self.config: dict[str, Any] = read_json(folder / CONFIG)
        self.fmt = read_format(folder)
        self._open: dict[str, Any] = {}
        fused = self.index.ruled.fused if self.index.ruled else {}
        self._matrices = {matrix.name: (name, matrix) for name, matrices in fused.items() for matrix in matrices}

    def tensor(self, name: str) -> Tensor:
        """Return a stored tensor. Raises UserError when there is none of that name."""
        return self._shard(name).get_tensor(name)  # type: ignore[no-any-return]

    def _shard(self, name: str) -> Any:
        shard = self.index.where.get(name)
        if shard is None:
            raise UserError(f"{self.folder}: no tensor {name}", "copy or download the model folder again")
        if shard not in self._open:
            self._open = {shard: safe_open(self.folder / shard, framework="pt")}  # one at a time: maps count as memory
        return self._open[shard]

    def names(self) -> Iterator[str]:
        """Yield logical weight names, shard by shard: codes and scales count as one `X.weight`, activation scales as nothing."""
        for tensors in self.index.shards.values():
            for tensor in tensors:
                logical = self._logical(tensor.name)
                if logical is not None:
                    yield logical

    def _logical(self, name: str) -> str | None:
        if isinstance(self.fmt, Bf16):
            return name
        if name.rpartition(".")[2] in PARTNERS:
            return None
        if name.endswith(".weight_packed"):
            return name.removesuffix("_packed")
        return name

    def weight(self, name: str) -> StoredWeight:
        """Return a logical weight, quantised if its scale is there; raises UserError when it is not in the folder."""
        if names := self._served(name):
            return StoredWeight(name, self.fmt, {part: self.tensor(stored) for part, stored in names.items()})
        if name in self.index.where:
            return StoredWeight(name, Bf16(), {name: self.tensor(name)})
        return StoredWeight(name, Bf16(), {name: self._of_fused(name)})

    def is_quantized(self, name: str) -> bool:
        """Return whether a logical weight is stored as codes and scales."""
        return bool(self._served(name))

    def _served(self, name: str) -> dict[str, str]:
        """Return served name -> stored name of a quantised weight; empty for one in high precision."""
        if not name.endswith(".weight") or isinstance(self.fmt, Bf16):
            return {}
        names = {part: self._stored(part) for part in served_names(name, self.fmt)}
        return names if all(stored in self.index.where for stored in names.values()) else {}

    def _stored(self, part: str) -> str:
        """Return the name a served tensor is stored under: transformers writes FP8 scales without blocks under the block name."""
        return f"{part}_inv" if part.endswith(".weight_scale") and part not in self.index.where else part

    def _of_fused(self, name: str) -> Tensor:
        """Return one expert's matrix out of a fused 3-D tensor: gate_up_proj [E, 2I, H], down_proj [E, H, I]."""
        if f"{name}{BLOCKS}" in self.index.where:
            blocks, scales = self.tensor(f"{name}{BLOCKS}"), self.tensor(f"{name}{SCALES}")
            return torch.stack([decode(b, s).T for b, s in zip(blocks, scales, strict=True)])
        if name in self._matrices:
            fused, (_, shape, first) = self._matrices[name]
            if shape == self.index.tensors[fused].shape:
                return self.tensor(fused)
            rows, cols = shape
            _, high, wide = self.index.tensors[fused].shape
            start = first // wide % high
            part: Tensor = self._shard(fused).get_slice(fused)[first // (high * wide), start : start + rows]
            return part.reshape(rows, cols)
        found = _EXPERT.match(name)
        fused = "" if found is None else f"{found[1]}.{'down_proj' if found[3] == 'down' else 'gate_up_proj'}"
        if found is None or not is_fused(fused) or fused not in self.index.where:
            raise UserError(f"{self.folder}: no tensor {name}", "copy or download the model folder again")
        expert: Tensor = self._shard(fused).get_slice(fused)[int(found[2])]
        if found[3] == "down":
            return expert
        half = expert.shape[0] // 2
        return expert[:half] if found[3] == "gate" else expert[half:]
