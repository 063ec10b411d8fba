"""What a checkpoint takes over from its source: tensors that config.json promises and training does not touch.

Those are the multi-token-prediction layers (layers N, N + 1, ... after the N decoder layers, or `mtp.*`): no trainer here computes them,
but an engine that speculates looks for them. And of a model whose language model is a part of it (`text_config`) all its other parts. The
other tensors a trainer leaves out (a tied head's copy, rotary tables) nobody is promised.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from lprl_api.model.checkpoint_tensors import HEAD, PREFIX
from lprl_api.model.model_shape import ModelShape
from lprl_workload.data import NamedTensor
from lprl_workload.folder.model import read_contents
from lprl_workload.hf.folder import read_folder
from lprl_workload.hf.folder_weights import published_weights
from lprl_workload.hf.naming import has_more, naming_of
from lprl_workload.hf.slots import further_layer, per_expert

MTP = "mtp."
"""What some families call what predicts further tokens, beside the language model."""


def untrained_weights(source: Path, shape: ModelShape) -> Iterator[NamedTensor]:
    """Yield the source's tensors that `shape` promises beside the trained ones, as they are stored, experts one by one.

    Raises UserError for a folder that cannot be read.
    """
    if has_more(source, shape.family):
        wanted = _besides(source, shape)
        yield from (NamedTensor(*item) for item in published_weights(source, shape, wanted.__contains__))
        return
    if not shape.mtp_layers:
        return
    promised = range(shape.layers, shape.layers + shape.mtp_layers)
    for name, tensor in read_folder(source, lambda name: further_layer(name, shape) in promised):
        yield from (NamedTensor(*item) for item in per_expert(name, tensor))


def further_layers(source: Path, shape: ModelShape) -> Callable[[str], int | None]:
    """Return what says of a stored tensor which layer it is of that predicts a further token, None of another one."""
    ruled = read_contents(source).ruled if has_more(source, shape.family) else None
    naming = naming_of(source)

    def layer(name: str) -> int | None:
        if name.startswith(MTP):
            return shape.layers
        if ruled is not None:
            found = ruled.place.layer(name)
            return found if found is not None and found >= shape.layers else None
        if naming is not None and name.startswith(naming.prefix):
            name = PREFIX + name.removeprefix(naming.prefix)
        return further_layer(name, shape)

    return layer


def _besides(source: Path, shape: ModelShape) -> frozenset[str]:
    """Return the tensors of a folder that lie outside of its decoder layers' trained ones, its embedding, last norms and head."""
    contents, naming, further = read_contents(source), naming_of(source), further_layers(source, shape)
    prefix = contents.ruled.place.prefix if contents.ruled is not None else naming.prefix if naming is not None else PREFIX
    heads = HEAD.rpartition(".")[0]
    beside = (name for name in contents.tensors if not name.startswith(prefix) and name.rpartition(".")[0].rpartition(".")[2] != heads)
    return frozenset((*beside, *(name for name in contents.tensors if further(name) is not None)))
