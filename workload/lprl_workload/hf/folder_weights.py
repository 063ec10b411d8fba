"""The weights of a folder under the names its model's checkpoint has, experts one by one where it has them so."""

from collections.abc import Callable, Iterator
from pathlib import Path

from torch import Tensor

from lprl_api.model.model_shape import ModelShape
from lprl_workload.folder.class_places import as_published
from lprl_workload.folder.model import read_contents
from lprl_workload.hf.folder import read_folder
from lprl_workload.hf.slots import per_expert


def published_weights(folder: Path, shape: ModelShape, wanted: Callable[[str], bool] = lambda name: True) -> Iterator[tuple[str, Tensor]]:
    """Yield every tensor of the model in `folder` that is stored under a `wanted` name, as the checkpoint of its family has it.

    Raises what `read_contents` raises, before the first tensor.
    """
    contents = read_contents(folder) if shape.family == "other" else None
    for name, tensor in read_folder(folder, wanted):
        yield from per_expert(name, tensor) if contents is None else as_published(contents, name, tensor)
