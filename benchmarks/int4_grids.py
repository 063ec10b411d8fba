"""INT4 grids against what is published: docs/adr/0030 has the figures.

    python benchmarks/int4_grids.py [MODEL FOLDER]

First what a least scale of 1e-5 does to weights by their size, and how many groups of a model's folder it reaches. Then, for
checkpoints made by 7 and by 7.5 (of normal weights, and of the folder's), how many values change when each grid quantises them again,
and what each grid loses of high-precision weights.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from lprl_api.model.formats import Int4Group
from lprl_api.model.formats.int4_group import Grid
from lprl_workload.quant.int4_group import dequantize_int4
from lprl_workload.quant.scheme import fake_quantize

GROUPS = (32, 64, 128)
OLD_FLOOR = 1e-5
GRIDS: tuple[Grid, ...] = ("symmetric", "source")


def rms(value: Tensor, weight: Tensor) -> float:
    return float((value.double() - weight.double()).norm() / weight.double().norm())


def rtn(weight: Tensor, group: int, divisor: float, low: int) -> Tensor:
    """Values of a checkpoint as a tool writes it: the scale unrounded in float32 for the codes, stored in BF16."""
    groups = weight.float().unflatten(-1, (-1, group))
    scale = (groups.abs().amax(dim=-1, keepdim=True) / divisor).to(torch.bfloat16)
    q = (groups / scale.float().clamp(min=2.0**-126)).round().clamp(low, 7).to(torch.int8)
    return dequantize_int4(q.flatten(-2), scale.squeeze(-1))


def with_floor(weight: Tensor, group: int) -> Tensor:
    groups = weight.float().unflatten(-1, (-1, group))
    scale = (groups.abs().amax(dim=-1, keepdim=True) / 7).clamp(min=OLD_FLOOR).to(torch.bfloat16)
    q = (groups / scale.float()).round().clamp(-7, 7).to(torch.int8)
    return dequantize_int4(q.flatten(-2), scale.squeeze(-1))


def normal(size: float) -> Tensor:
    return (torch.randn(512, 2048, generator=torch.Generator().manual_seed(0)) * size).to(torch.bfloat16)


def matrices(folder: Path) -> Iterator[Tensor]:
    for shard in sorted(folder.glob("*.safetensors")):
        for name, tensor in load_file(shard).items():
            if name.endswith("_proj.weight") and tensor.ndim == 2:
                yield tensor.to(torch.bfloat16)


def floors(weights: list[Tensor]) -> None:
    print("| weights of size | relative RMS with a least scale of 1e-5 | without |\n|---|---|---|")
    for size in (1e-2, 1e-4, 3e-5, 1e-5, 3e-6, 1e-6, 1e-8):
        weight = normal(size)
        print(
            f"| {size:g} | {rms(with_floor(weight, 32), weight):.3f} | {rms(fake_quantize(weight, Int4Group(group_size=32)), weight):.3f} |"
        )
    for group in GROUPS:
        largest = torch.cat(
            [w.unflatten(-1, (-1, group)).abs().amax(dim=-1).flatten().float() for w in weights if w.shape[1] % group == 0]
            or [torch.ones(0)]
        )
        if largest.numel():
            below = largest < 7 * OLD_FLOOR
            print(
                f"folder, groups of {group}: {int(below.sum())} of {largest.numel()} below, {int((below & (largest > 0)).sum())} not zero"
            )


def grids(named: dict[str, list[Tensor]]) -> None:
    print("\n| weights | checkpoint | grid | values that change | relative RMS of the change |\n|---|---|---|---|---|")
    for name, weights in named.items():
        for made, divisor, low in (("by 7", 7.0, -7), ("by 7.5, -8", 7.5, -8)):
            values = [rtn(w, 32, divisor, low) for w in weights]
            for grid in GRIDS:
                again = [fake_quantize(v, Int4Group(group_size=32, grid=grid)) for v in values]
                changed = sum(int((a != v).sum()) for a, v in zip(again, values, strict=True)) / sum(v.numel() for v in values)
                error = rms(torch.cat([a.flatten() for a in again]), torch.cat([v.flatten() for v in values]))
                print(f"| {name} | {made} | {grid} | {changed:.2%} | {error:.4f} |")
    print("\n| weights | groups | relative RMS symmetric | source |\n|---|---|---|---|")
    for name, weights in named.items():
        for group in GROUPS:
            fit = [w for w in weights if w.shape[1] % group == 0]
            found = [
                rms(
                    torch.cat([fake_quantize(w, Int4Group(group_size=group, grid=g)).flatten() for w in fit]),
                    torch.cat([w.flatten() for w in fit]),
                )
                for g in GRIDS
                if fit
            ]
            if found:
                print(f"| {name} | {group} | {found[0]:.4f} | {found[1]:.4f} |")


def main() -> None:
    weights = list(matrices(Path(sys.argv[1]))) if len(sys.argv) > 1 else []
    floors(weights)
    grids({"normal": [normal(0.02)]} | ({Path(sys.argv[1]).name: weights} if weights else {}))


if __name__ == "__main__":
    main()
