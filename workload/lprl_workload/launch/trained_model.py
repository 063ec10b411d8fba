"""The BF16 model of a checkpoint, put together from what the trainer's ranks saved: any time later, without a trainer.

It is read parameter by parameter and written as it comes: in memory are at most one file's worth of weights (4 GB) and the rows being
read. The result holds the very tensors that a trainer exports.
"""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from lprl_api.derived.run_folder import step_name, steps_of
from lprl_api.errors import UserError
from lprl_api.model.checkpoint_tensors import CORRECTION, checkpoint_tensors
from lprl_api.model.model_shape import ModelShape
from lprl_workload.checkpoint.hf_folder import ModelWriter, finish_trained
from lprl_workload.checkpoint.manifest import MANIFEST, Manifest, verify
from lprl_workload.convert.places import check_apart
from lprl_workload.data import NamedTensor
from lprl_workload.folder.config import read_shape
from lprl_workload.hf.folder import read_folder
from lprl_workload.hf.model import build_model
from lprl_workload.hf.naming import naming_of
from lprl_workload.hf.slots import WeightSlot, weight_slots
from lprl_workload.io.parts import FileRecord
from lprl_workload.process.errors import DamagedError
from lprl_workload.rl.saving import MODEL, TRAINER
from lprl_workload.train import saved_pieces
from lprl_workload.train.saved import SavedParts, schema_of
from lprl_workload.train.saved_pieces import SavedPieces


@contextmanager
def folder_with_model(checkpoint: Path, out: Path, source: Path | None) -> Iterator[Path]:
    """Give the folder whose model is exported: `checkpoint` itself, its newest step, or, of a step that holds the trainer's state
    alone, a model put together in a folder of its own in `out`, which is gone afterwards.

    `source`: the model that was trained; None takes the folder that the checkpoint names. Raises UserError.
    """
    step = _step_of(checkpoint)
    if step is None or (step / MODEL).is_dir():
        yield step or checkpoint
        return
    check_apart(step, out)
    made = out / f".{step.name}.model"
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(parents=True)
    try:
        write_model_of(step, source, made)
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _step_of(checkpoint: Path) -> Path | None:
    """Return the step meant by a run folder (the newest complete one) or a step folder; None for anything else."""
    if (checkpoint / TRAINER).is_dir() and (checkpoint / MANIFEST).is_file():
        return checkpoint
    complete = [checkpoint / step_name(step) for step in steps_of(checkpoint)]
    return next((step for step in reversed(complete) if (step / MANIFEST).is_file() and (step / TRAINER).is_dir()), None)


def write_model_of(step: Path, source: Path | None, into: Path) -> None:
    """Fill the empty folder `into` with the BF16 model of a checkpoint.

    Raises UserError when the checkpoint is damaged or the model it was trained from is not where it says, and not given.
    """
    manifest = verify(step, "sizes")
    if not isinstance(manifest, Manifest):
        raise UserError(f"{step}: {manifest.reason}", "export another step")
    model = source or Path(manifest.source)
    if not (model / "config.json").is_file():
        raise UserError(f"{step}: the model it was trained from is not in {model}", "name that model's folder with --model")
    shape = manifest.shape or read_shape(model)
    writer = ModelWriter(into, model)
    try:
        for item in _trained(step / TRAINER, manifest.below(TRAINER), model, shape):
            writer.add(item)
    except DamagedError as error:
        raise UserError(str(error), "export another step: this one is damaged") from error
    finish_trained(writer, model, shape)


def _trained(folder: Path, records: Sequence[FileRecord], model: Path, shape: ModelShape) -> Iterator[NamedTensor]:
    """Yield every tensor of the model's checkpoint, whichever trainer saved it."""
    if schema_of(folder) == saved_pieces.SCHEMA:
        with SavedPieces(folder, records) as pieces:
            naming = naming_of(model)
            names = {naming.stored(name) if naming is not None else name for name in checkpoint_tensors(shape)}
            kept = frozenset(name for name in names if name.endswith(CORRECTION))
            yield from _kept(model, kept)
            for name in sorted(names - kept):
                yield NamedTensor(name, pieces.whole(name, "master").to(torch.bfloat16))
        return
    slots = weight_slots(build_model(model, shape, "meta"), shape)
    with SavedParts(folder, records) as rows:
        yield from _kept(model, frozenset(slot.name for slot in slots if slot.is_buffer))
        yield from _of_rows(rows, slots)


def _kept(model: Path, names: frozenset[str]) -> Iterator[NamedTensor]:
    """Yield tensors that training leaves as they were: router correction biases."""
    for name, tensor in read_folder(model, names.__contains__) if names else ():
        yield NamedTensor(name, tensor.to(torch.float32))


def _of_rows(saved: SavedParts, slots: Sequence[WeightSlot]) -> Iterator[NamedTensor]:
    """Yield every tensor that was trained of what the torch trainer saved."""
    by_parameter: dict[str, list[WeightSlot]] = {}
    for slot in slots:
        by_parameter.setdefault(slot.parameter, []).append(slot)
    for parameter, parts in by_parameter.items():
        if parts[0].is_buffer:
            continue
        rows = parts[0].tensor.shape[0]
        if not parts[0].index or parts[0].rows is not None:
            whole = torch.empty(parts[0].tensor.shape, dtype=torch.bfloat16)
            for row, values in saved.read(parameter, "master", 0, rows):
                whole[row : row + values.shape[0]] = values
            for slot in parts:
                yield NamedTensor(slot.name, whole[slot.index] if slot.index else whole)
            continue
        for row, experts in saved.read(parameter, "master", 0, rows):
            for slot in parts:
                number, *rest = slot.index
                assert isinstance(number, int)
                if row <= number < row + experts.shape[0]:
                    yield NamedTensor(slot.name, experts[(number - row, *rest)].to(torch.bfloat16))
