"""The plain converter that ours is measured against: what one writes in an afternoon, with no mistake on purpose.

Per shard: load_file; per tensor: fp32, pad, amax, divide, cast; save_file; fsync. A pool of threads over the shards.

    python benchmarks/convert/plain.py SOURCE TARGET {fp8-block,int4-group} --workers N

It selects the weights our converter selects and computes no digests, error statistics or reports.
"""

import argparse
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lprl_api.model.formats import Fp8Block, Int4Group
from lprl_api.model.model_shape import ModelShape
from lprl_workload.quant.select import Selection

BLOCK, GROUP = 128, 128


def fp8_block(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Quantise [N, K] to E4M3 codes and one float32 scale per 128 x 128 block."""
    rows, cols = weight.shape
    x = torch.nn.functional.pad(weight.float(), (0, -cols % BLOCK, 0, -rows % BLOCK))
    x = x.view(x.shape[0] // BLOCK, BLOCK, x.shape[1] // BLOCK, BLOCK)
    scale = x.abs().amax(dim=(1, 3), keepdim=True).clamp(min=1e-12) / 448.0
    codes = (x / scale).to(torch.float8_e4m3fn)
    return codes.view(codes.shape[0] * BLOCK, -1)[:rows, :cols].contiguous(), scale.view(scale.shape[0], scale.shape[2])


def int4_group(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Quantise [N, K] to packed INT4 codes and one BF16 scale per 128 columns."""
    rows, cols = weight.shape
    x = weight.float().view(rows, cols // GROUP, GROUP)
    scale = (x.abs().amax(dim=-1, keepdim=True) / 7.0).clamp(min=1e-5).bfloat16()
    codes = (torch.round(x / scale.float()).clamp(-7, 7) + 8).to(torch.int32).view(rows, cols // 8, 8)
    packed = torch.zeros(rows, cols // 8, dtype=torch.int32)
    for i in range(8):
        packed |= codes[..., i] << (4 * i)
    return packed, scale.view(rows, cols // GROUP)


def convert_shard(source: Path, target: Path, selection: Selection) -> None:
    """Convert one file."""
    out: dict[str, Tensor] = {}
    for name, weight in load_file(source).items():
        if not selection.selects(name, tuple(weight.shape)):
            out[name] = weight
        elif isinstance(selection.fmt, Fp8Block):
            out[name], out[f"{name}_scale_inv"] = fp8_block(weight)
        else:
            out[f"{name}_packed"], out[f"{name}_scale"] = int4_group(weight)
            out[f"{name}_shape"] = torch.tensor(weight.shape)
    save_file(out, target, metadata={"format": "pt"})
    fd = os.open(target, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def main() -> None:
    """Convert and print the seconds it took, without start-up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("format", choices=["fp8-block", "int4-group"])
    parser.add_argument("--workers", type=int, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    fmt = Fp8Block() if args.format == "fp8-block" else Int4Group(group_size=GROUP)
    selection = Selection(fmt, ModelShape.model_validate_json((args.source / "shape.json").read_text()))
    args.target.mkdir(parents=True)
    shards = sorted(args.source.glob("*.safetensors"))
    started, cpu = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(args.workers) as pool:
        list(pool.map(lambda shard: convert_shard(shard, args.target / shard.name, selection), shards))
    print(json.dumps({"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - cpu}))


if __name__ == "__main__":
    main()
