"""The converter, a plain tool's loop on the GPU, and reading and writing alone, on one model of one disk.

    python -m benchmarks.gpu.convert --work FOLDER --out FILE.json [--layers 12] [--threads 16]

Each run converts the same BF16 model (GB/s of it; LAYERS of 64 experts, 640 MB each) and flushes every file. From the
page cache, then (`--cold`, as root) from the disk with the cache emptied. `read and write`: every source shard is read and as many bytes
as its conversion has are written and flushed, by as many threads.
"""

import argparse
import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from benchmarks.gpu.shapes import SHAPES
from safetensors.torch import load_file, save_file

from lprl_api.model.formats import Fp8Block, Int4Group, WeightFormat
from lprl_api.model.model_shape import ModelShape
from lprl_api.spec.precision import Scope
from lprl_fixtures.shape import model_shape
from lprl_fixtures.tensors import tensor_specs
from lprl_workload.convert.run import convert_shards
from lprl_workload.quant.select import Selection

FORMATS: dict[str, WeightFormat] = {"fp8-block": Fp8Block(), "int4-group": Int4Group(group_size=128, scope=Scope.ALL_LINEAR)}
SHARD_BYTES = 600_000_000
CHUNK = 32 << 20


def config_of(layers: int) -> dict[str, Any]:
    return SHAPES["qwen3-30b-a3b"] | {"num_hidden_layers": layers, "num_experts": 64, "vocab_size": 32000}


def generate(folder: Path, layers: int) -> int:
    """Write the model, made on the GPU; returns its bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    weight_map: dict[str, str] = {}
    shard: dict[str, torch.Tensor] = {}
    total = number = 0
    for name, shape in [*((spec.name, spec.shape) for spec in tensor_specs(config_of(layers), False)), ("", ())]:
        size = 2 * int(torch.tensor(shape).prod()) if name else 0
        if shard and (not name or sum(t.nbytes for t in shard.values()) + size > SHARD_BYTES):
            number += 1
            file = f"model-{number:05d}.safetensors"
            save_file(shard, folder / file, metadata={"format": "pt"})
            weight_map |= dict.fromkeys(shard, file)
            total += sum(t.nbytes for t in shard.values())
            shard = {}
        if name:
            shard[name] = (torch.randn(shape, device=device) * 0.02).to(torch.bfloat16).cpu()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}))
    (folder / "config.json").write_text(json.dumps(config_of(layers)))
    return total


def flush(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def plain(source: Path, target: Path, fmt: WeightFormat, shape: ModelShape, threads: int) -> None:
    """What one writes in an afternoon: load a shard, quantise its tensors on the GPU one by one, save it."""
    selection = Selection(fmt, shape)
    target.mkdir(parents=True)

    def one(shard: Path) -> None:
        out: dict[str, torch.Tensor] = {}
        for name, weight in load_file(shard).items():
            if not selection.selects(name, tuple(weight.shape)):
                out[name] = weight
                continue
            x = weight.cuda().float()
            rows, cols = x.shape
            if isinstance(fmt, Fp8Block):
                tiles = x.view(rows // 128, 128, cols // 128, 128)
                scale = tiles.abs().amax(dim=(1, 3), keepdim=True).clamp(min=1e-12) / 448.0
                out[name] = (tiles / scale).to(torch.float8_e4m3fn).view(rows, cols).cpu()
                out[f"{name}_scale_inv"] = scale.view(rows // 128, cols // 128).cpu()
            else:
                groups = x.view(rows, cols // 128, 128)
                scale = (groups.abs().amax(dim=-1, keepdim=True) / 7.0).clamp(min=1e-5).bfloat16()
                codes = (torch.round(groups / scale.float()).clamp(-7, 7) + 8).to(torch.int32).view(rows, cols // 8, 8)
                shifts = torch.arange(0, 32, 4, device=x.device, dtype=torch.int32)
                out[f"{name}_packed"] = (codes << shifts).sum(dim=-1, dtype=torch.int32).cpu()
                out[f"{name}_scale"] = scale.view(rows, cols // 128).cpu()
                out[f"{name}_shape"] = torch.tensor(weight.shape)
        save_file(out, target / shard.name, metadata={"format": "pt"})
        flush(target / shard.name)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(one, sorted(source.glob("*.safetensors"))))


def ours(source: Path, target: Path, fmt: WeightFormat, shape: ModelShape, threads: int) -> None:
    convert_shards(source, target, fmt, shape, sorted(p.name for p in source.glob("*.safetensors")), threads, lambda _: None)


def alone(source: Path, target: Path, sizes: dict[str, int], threads: int) -> None:
    """Read every shard, write as many bytes as its conversion has."""
    target.mkdir(parents=True)

    def one(shard: Path) -> None:
        buffer, left = bytearray(CHUNK), sizes[shard.name]
        view = memoryview(buffer)
        with shard.open("rb", buffering=0) as read, (target / shard.name).open("wb", buffering=0) as write:
            while count := read.readinto(buffer):
                written = min(left, count)
                write.write(view[:written])
                left -= written
            os.fsync(write.fileno())

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(one, sorted(source.glob("*.safetensors"))))


def measured(action: Callable[[], None], source: Path, cold: bool) -> float:
    os.sync()
    if cold:
        Path("/proc/sys/vm/drop_caches").write_text("3")
    else:
        for shard in source.glob("*.safetensors"):
            with shard.open("rb") as file:
                while file.read(CHUNK):
                    pass
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def main(argv: Sequence[str] | None = None) -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--work", type=Path, required=True)
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--layers", type=int, default=12)
    options.add_argument("--threads", type=int, default=os.cpu_count())
    options.add_argument("--cold", action="store_true")
    options.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    given = options.parse_args(argv)
    source, shape = given.work / "source", model_shape(config_of(given.layers))
    total = generate(source, given.layers)
    found: dict[str, object] = {"bytes": total, "threads": given.threads}
    print(f"{total / 1e9:.1f} GB written", flush=True)
    torch.set_num_threads(1)
    for kind in given.formats:
        fmt = FORMATS[kind]
        for warm in (True, False) if given.cold else (True,):
            sizes: dict[str, int] = {}
            ways: dict[str, Callable[[Path], None]] = {
                "lprl": lambda t, fmt=fmt: ours(source, t, fmt, shape, given.threads),
                "plain loop on the gpu": lambda t, fmt=fmt: plain(source, t, fmt, shape, given.threads),
                "read and write": lambda t, sizes=sizes: alone(source, t, sizes, given.threads),
            }
            if not torch.cuda.is_available():
                ways = {name: way for name, way in ways.items() if "gpu" not in name}
            for name, way in ways.items():
                target = given.work / name.replace(" ", "-")
                seconds = []
                for _ in range(2 if warm else 1):
                    shutil.rmtree(target, ignore_errors=True)
                    seconds.append(measured(lambda way=way, target=target: way(target), source, not warm))
                sizes |= {p.name: p.stat().st_size for p in target.glob("*.safetensors")} if name == "lprl" else {}
                key = f"{kind}, {'page cache' if warm else 'disk'}, {name}"
                found[key] = round(total / min(seconds) / 1e9, 2)
                print(f"{key:48} {found[key]} GB/s ({', '.join(f'{s:.2f}' for s in seconds)} s)", flush=True)
                given.out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
