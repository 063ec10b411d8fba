"""What a running SGLang can do, told by what it answers, and by its version only where nothing else tells."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lprl_api.errors import UserError
from lprl_api.model.formats import Bf16, Fp8Block, Int4Group, WeightFormat
from lprl_api.model.model_shape import ModelShape
from lprl_api.model.weights import all_weights, selects

Version = tuple[int, int, int]
OLDEST: Version = (0, 5, 17)
NEWEST: Version = (0, 5, 23)
"""Releases the tests ran on: the oldest on a GPU, the newest on a CPU. A newer one is taken with a warning, an older one is refused."""
SESSION_ROUTES = frozenset({"/begin_weight_update", "/end_weight_update"})
WEIGHT_VERSIONS: Version = (0, 5, 19)
"""First release whose answers say which weights drew which tokens; nothing else tells before the first answer."""
LLAMA_BLOCK_SCALES: tuple[Version, Version] = ((0, 5, 17), (0, 5, 23))
"""Releases (first and last looked at) whose Llama loader renames weight_scale_inv, so that block scales never arrive."""

ADA = (8, 9)
"""Compute capability from which GPUs multiply in FP8; others unpack weights that were packed for it once."""
BLACKWELL = (10, 0)
"""Compute capability from which DeepGEMM's scales are powers of two and packed, and INT4 experts run in Triton: nothing undoes either."""


def parse_version(text: str) -> Version:
    """Return the numbers of a version such as 0.5.23.post1; raises UserError for anything else."""
    found = re.match(r"v?(\d+)\.(\d+)\.(\d+)", text)
    if found is None:
        raise UserError(f"SGLang says its version is {text!r}", f"use a release from {shown(OLDEST)} to {shown(NEWEST)}")
    return int(found[1]), int(found[2]), int(found[3])


def shown(version: Version) -> str:
    """Return a version as it is written."""
    return ".".join(map(str, version))


@dataclass(frozen=True, slots=True)
class Release:
    """One running server's abilities."""

    version: Version
    sessions: bool
    """Updates go between begin and end, which undo and redo how kernels want weights packed (since 0.5.21)."""
    weight_versions: bool
    """Answers say which weights drew which tokens (since 0.5.19)."""
    cpu: bool = False
    """It computes on CPUs, by the platform plugin: weights stay as checkpoints have them."""

    @classmethod
    def of(cls, info: Mapping[str, Any], api: Mapping[str, Any]) -> "Release":
        """Return the abilities of a server by its answers to `Control.server_info` and `Control.api`.

        Raises UserError for a release older than the range the tests ran on.
        """
        version = parse_version(str(info.get("version", "")))
        if version < OLDEST:
            fits = f"use a release from {shown(OLDEST)} to {shown(NEWEST)}"
            raise UserError(f"SGLang {shown(version)}: weights cannot be updated safely in releases before {shown(OLDEST)}", fits)
        routes = api.get("paths")
        sessions = routes.keys() >= SESSION_ROUTES if routes else version >= (0, 5, 21)
        return cls(version, sessions, version >= WEIGHT_VERSIONS, str(info.get("device", "")) == "cpu")

    @property
    def warning(self) -> str:
        """Return what to tell the user of this release; empty when there is nothing."""
        if self.version > NEWEST:
            return f"SGLang {shown(self.version)} is newer than {shown(NEWEST)}, the newest the tests ran on"
        return ""

    def check(self, shape: ModelShape, fmt: WeightFormat, capability: tuple[int, int] | None = None) -> None:
        """Raise UserError for a model in a format that this release would serve wrongly, or would not take a second time as the first.

        `capability`: of the GPU it runs on; default that of this process's first one.
        """
        first, last = LLAMA_BLOCK_SCALES
        if isinstance(fmt, Fp8Block) and shape.family == "llama" and first <= self.version <= last:
            raise UserError(
                f"SGLang {shown(self.version)} serves block FP8 of {shape.architecture} as noise: it loses the scales while it loads",
                "bf16, or a model of another family; backends.rollout torch serves it",
            )
        if self.cpu or isinstance(fmt, Bf16):
            return
        found = capability or _capability()
        if found >= BLACKWELL:
            raise UserError(
                f"SGLang {shown(self.version)} brings {fmt.kind} weights into another layout on GPUs of this kind and does not undo it",
                "bf16, or GPUs of the Hopper generation",
            )
        if isinstance(fmt, Fp8Block):
            packed = fmt.activations != "dynamic" or (0, 0) < found < ADA
            lost = "FP8 weights packed for BF16 activations" if packed else ""
        elif isinstance(fmt, Int4Group):
            lost = "" if _experts_only(shape, fmt) else "dense INT4 weights"
        else:
            lost = f"{fmt.kind} weights"
        if lost:
            raise UserError(
                f"SGLang {shown(self.version)} takes {lost} once: what its kernels make of them is not undone for a second load",
                "fp8-block with FP8 activations, INT4 for routed experts only (precision.int4.scope), or bf16",
            )


def _capability() -> tuple[int, int]:
    import torch

    return torch.cuda.get_device_capability() if torch.cuda.is_available() else (0, 0)


def _experts_only(shape: ModelShape, fmt: Int4Group) -> bool:
    return all(weight.kind == "expert" for module, weight in all_weights(shape) if selects(fmt, module, weight))
