"""Reading the tensors of a Hugging Face folder: memory-mapped, one tensor at a time, and only those that are its model."""

from collections.abc import Callable, Iterator
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from lprl_api.errors import UserError
from lprl_workload.folder.model import read_contents
from lprl_workload.process.movement import here


def read_folder(folder: Path, wanted: Callable[[str], bool] = lambda name: True) -> Iterator[tuple[str, Tensor]]:
    """Yield every tensor of the folder's model whose name is `wanted` on the CPU, file by file.

    Raises what `read_contents` raises, before the first tensor.
    """
    for file, tensors in read_contents(folder).shards.items():
        try:
            with safe_open(folder / file, framework="pt", device="cpu") as shard:
                for tensor in tensors:
                    if wanted(tensor.name):
                        here.tick()
                        yield tensor.name, shard.get_tensor(tensor.name)
        except SafetensorError as error:
            raise UserError(f"{folder / file}: not a safetensors file ({error})", "copy or download the file again") from error
