"""What a checkpoint takes over from its source: tensors that config.json promises and training does not touch.

Those are the multi-token-prediction layers (`num_nextn_predict_layers`): layers N, N + 1, ... after the N decoder layers. No trainer
here computes them, but an engine that speculates looks for them. The other tensors a trainer leaves out (a tied head's copy, rotary
tables) nobody is promised.
"""

from collections.abc import Iterator
from pathlib import Path

from lprl_api.model.model_shape import ModelShape
from lprl_workload.data import NamedTensor
from lprl_workload.hf.folder import read_folder
from lprl_workload.hf.slots import further_layer, per_expert


def untrained_weights(source: Path, shape: ModelShape) -> Iterator[NamedTensor]:
    """Yield the source's tensors that `shape` promises beside the trained ones, as they are stored, experts one by one.

    Raises UserError for a folder that cannot be read.
    """
    if not shape.mtp_layers:
        return
    promised = range(shape.layers, shape.layers + shape.mtp_layers)
    for name, tensor in read_folder(source, lambda name: further_layer(name, shape) in promised):
        yield from (NamedTensor(*item) for item in per_expert(name, tensor))
