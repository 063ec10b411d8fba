"""The servers of test_cpu_platform.py and test_second_load.py, one for each model and format: a start costs what twenty tests do."""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tests.backends.weight_site import Site, format_of

from lprl_api.model.formats import Bf16, Int4Group, WeightFormat
from lprl_fixtures.architectures import Architecture
from lprl_fixtures.generate import ModelOptions, generate_model
from lprl_fixtures.shape import model_shape
from lprl_workload.convert.cli import convert_all_command
from lprl_workload.folder.files import SINGLE_FILE


@dataclass(frozen=True)
class Kind:
    """What a server serves."""

    architecture: Architecture
    format: str
    ranks: int = 1
    """Tensor-parallel ones."""

    def __str__(self) -> str:
        return f"{self.architecture}-{self.format}-{self.ranks}"


LOADED = tuple(Kind("qwen3", name) for name in ("bf16", "fp8", "fp8-weight-only", "int4"))
LOADED += (Kind("qwen3-moe", "fp8"), Kind("qwen3-moe", "int4"), Kind("deepseek-v3", "fp8"), Kind("llama", "fp8-channel"))
LOADED += (Kind("llama", "fp8-tensor"),)
"""Started with a checkpoint's weights, as SGLang's own loaders take them."""
PUSHED = tuple(Kind("qwen3", name) for name in ("bf16", "fp8", "fp8-channel", "int4"))
PUSHED += (Kind("qwen3-moe", "bf16", 2), Kind("qwen3-moe", "fp8"), Kind("qwen3-moe", "int4"))
PUSHED += (Kind("deepseek-v3", "fp8"), Kind("deepseek-v3", "int4"), Kind("moonlight", "fp8"))
"""Weights are pushed into them; those that are not LOADED start without any."""


@dataclass
class Kept:
    """A server, and the checkpoints it was made for."""

    site: Site
    folders: tuple[Path, ...]
    """What it was started with, and other weights of the same model and format; none of a server that started empty."""


class Sites:
    """One server at a time: each takes two gigabytes."""

    def __init__(self, room: Path) -> None:
        self._room, self._kind = room, Kind("qwen3", "")
        self._kept: Kept | None = None

    def of(self, kind: Kind) -> Kept:
        """Return the server of a kind; the one there was ends, unless it is this one."""
        if self._kept is None or self._kind != kind:
            self.close()
            torch.set_num_threads(1)
            room = Path(tempfile.mkdtemp(prefix=f"{kind}-", dir=self._room))
            folders = tuple(converted(source(room, kind.architecture, seed), kind) for seed in (3, 4)) if kind in LOADED else ()
            (room / "served").mkdir()
            loaded = folders[0] if folders else None
            self._kind, self._kept = kind, Kept(Site(room / "served", kind.architecture, kind.format, kind.ranks, loaded), folders)
        return self._kept

    def close(self) -> None:
        """End it."""
        if self._kept is not None:
            self._kept.site.close()
            self._kept = None


def source(room: Path, architecture: Architecture, seed: int) -> Path:
    """A model with weights of five times the usual spread, so that its distributions are far from uniform."""
    folder = room / f"seed-{seed}"
    generate_model(folder, ModelOptions(architecture, "blocks", seed=seed))
    tensors = load_file(folder / SINGLE_FILE)
    spread = {name: tensor * 5 if tensor.ndim > 1 else tensor for name, tensor in tensors.items()}
    save_file(spread, folder / SINGLE_FILE, metadata={"format": "pt"})
    return folder


def converted(folder: Path, kind: Kind) -> Path:
    fmt: WeightFormat = format_of(kind.format, kind.architecture, model_shape(json.loads((folder / "config.json").read_text())))
    if isinstance(fmt, Bf16):
        return folder
    target = folder.with_name(f"{folder.name}-{fmt.kind}")
    options = ["--group-size", str(fmt.group_size), "--scope", fmt.scope] if isinstance(fmt, Int4Group) else []
    options += ["--activations", "none"] if getattr(fmt, "activations", "") == "none" else []
    assert convert_all_command([str(folder), str(target), "--to", fmt.kind, *options]) == 0
    return target
