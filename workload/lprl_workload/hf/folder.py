"""Reading the tensors of a Hugging Face folder: one or many safetensors files, memory-mapped, one tensor at a time."""

from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from lprl_api.errors import UserError
from lprl_workload.hf.model import read_json

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"


def weight_files(folder: Path) -> tuple[Path, ...]:
    """Return the safetensors files of a folder, sorted: those the index names, else model.safetensors.

    Raises UserError naming a file that is missing, or an index entry that leads out of the folder.
    """
    if (folder / INDEX).is_file():
        weight_map = read_json(folder / INDEX).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise UserError(f"{folder / INDEX}: no weight_map")
        names = sorted({str(name) for name in weight_map.values()})
        outside = [name for name in names if "/" in name or "\\" in name or name in ("", ".", "..")]
        if outside:
            raise UserError(f"{folder / INDEX}: {outside[0]!r} is no file name")
    else:
        names = [SINGLE]
    files = tuple(folder / name for name in names)
    for file in files:
        if not file.is_file():
            raise UserError(f"{file}: no such file", "the folder needs model.safetensors, or model.safetensors.index.json and its shards")
    return files


def read_folder(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Yield every tensor of the folder on the CPU, file by file."""
    for file in weight_files(folder):
        try:
            with safe_open(file, framework="pt", device="cpu") as shard:
                for name in shard.keys():  # noqa: SIM118 (safe_open is no mapping)
                    yield name, shard.get_tensor(name)
        except SafetensorError as error:
            raise UserError(f"{file}: not a safetensors file ({error})") from error
