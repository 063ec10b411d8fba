"""Look at a source without believing it: bounded parsing of config.json and every header, then shape, size and fingerprint."""

from pathlib import Path

from lprl_api.errors import UserError
from lprl_api.model import config_file
from lprl_api.model.formats import WeightFormat
from lprl_api.model.formats.mxfp4 import Mxfp4
from lprl_api.model.known import has_table, model_type
from lprl_api.model.look import Look
from lprl_api.model.model_shape import Inspection, SourceQuantization
from lprl_api.model.module_kinds import kind_of
from lprl_api.names import TERMINATION_MESSAGE_BYTES
from lprl_api.spec.precision import Scope
from lprl_workload.convert.disk import free_bytes
from lprl_workload.convert.fingerprint import fingerprint
from lprl_workload.folder.config import check_trainable, read_config, read_format, read_model_class, read_shape
from lprl_workload.folder.contents import FolderContents
from lprl_workload.folder.header import total_bytes
from lprl_workload.folder.model import read_contents
from lprl_workload.folder.quantized import is_codes, logical
from lprl_workload.quant.rule import Ruled

MAX_NOTES, MAX_NOTE_CHARACTERS = 4, 240
"""What of the notes on a folder goes into its inspection, which has to fit a termination message."""


def look_at(folder: Path) -> Inspection | Look:
    """Return what a model folder is, also one whose family has no table and that therefore only a conversion can take.

    Raises what `inspect_folder` raises.
    """
    if has_table(read_config(folder)):
        return inspect_folder(folder, "")
    contents = read_contents(folder)
    ruled = contents.ruled
    assert ruled is not None, "a family has a table, or the rule's answers"
    mxfp4 = ("experts are MXFP4: --to bf16 unpacks them",) if isinstance(read_format(folder), Mxfp4) else ()
    refused = [f"{name}: {why}"[:MAX_NOTE_CHARACTERS] for name, why in ruled.refused.items()]
    return Look(
        model_type=model_type(read_config(folder)),
        model_class=ruled.model_class,
        way=ruled.way,
        layers=ruled.layers,
        experts=ruled.experts,
        linear=len(ruled.kinds),
        routed=sum(kind == "routed" for kind in ruled.kinds.values()),
        refused=tuple(refused[:MAX_NOTES]),
        fingerprint=fingerprint(folder, "", contents),
        total_bytes=total_bytes(contents.tensors.values()),
        tensors=len(contents.tensors),
        shards=len(contents.shards),
        quantization=SourceQuantization() if mxfp4 else config_file.source_quantization(read_format(folder)),
        notes=tuple(note[:MAX_NOTE_CHARACTERS] for note in (*mxfp4, *contents.notes)[:MAX_NOTES]),
        inspection=_trainable(folder),
    )


def _trainable(folder: Path) -> Inspection | None:
    """Return what a job's inspection says, None for what no job can train."""
    try:
        check_trainable(folder)
        return inspect_folder(folder, "")
    except UserError:
        return None


def inspect_folder(folder: Path, volume_identity: str, free_space_at: Path | None = None) -> Inspection:
    """Return what the operator needs to know of a model folder.

    Raises UserError naming file, key or tensor when config.json, headers and index do not make a model this project knows.
    """
    if not has_table(read_config(folder)):
        check_trainable(folder)
    shape, fmt = read_shape(folder), read_format(folder)
    contents = read_contents(folder)
    if contents.ruled is not None:
        check_by_class(contents.ruled, folder)
    return Inspection(
        shape=shape,
        fingerprint=fingerprint(folder, volume_identity, contents),
        total_bytes=total_bytes(contents.tensors.values()),
        tensors=len(contents.tensors),
        shards=len(contents.shards),
        quantization=source_quantization(fmt, contents),
        free_bytes=free_bytes(free_space_at) if free_space_at is not None else None,
        model_class=read_model_class(folder),
        notes=tuple(note[:MAX_NOTE_CHARACTERS] for note in contents.notes[:MAX_NOTES]),
    )


def check_by_class(ruled: Ruled, folder: Path) -> None:
    """Refuse to train a folder of a proven family that is not as its class has it: raises UserError."""
    if ruled.way != "class":
        what = f"{folder}: a model that differs from its class in transformers can be converted, not trained"
        raise UserError(what, "train the model as transformers publishes it; lprl inspect says what differs")
    if ruled.own_prefix != ruled.place.prefix:
        here, there = f"begin with {ruled.place.prefix!r}", f"those of {ruled.model_class} with {ruled.own_prefix!r}"
        what = f"{folder}: tensors of the language model {here}; {there}"
        raise UserError(what, f"save it as {ruled.model_class} with transformers, whose names these are")


def source_quantization(fmt: WeightFormat, contents: FolderContents) -> SourceQuantization:
    """Return a source's own precision, normalised; the scope is that of the weights which have codes."""
    found = config_file.source_quantization(fmt)
    if found.scope is None:
        return found
    codes = [logical(tensor.name) for tensor in contents.tensors.values() if is_codes(tensor)]
    kinds = contents.ruled.kinds if contents.ruled is not None else None
    routed = all((kind_of(name) if kinds is None else kinds.get(name)) == "routed" for name in codes)
    scope = Scope.ROUTED_EXPERTS if routed else Scope.ALL_LINEAR
    return found.model_copy(update={"scope": scope.value})


def inspection_message(inspection: Inspection) -> str:
    """Return the inspection as JSON of at most 4096 bytes, the inspect Job's termination message."""
    text = inspection.model_dump_json(by_alias=True)
    if len(text.encode()) > TERMINATION_MESSAGE_BYTES:
        raise UserError(
            f"inspection: {len(text.encode())} bytes, a termination message holds {TERMINATION_MESSAGE_BYTES}",
            "report this model: its inspection should fit",
        )
    return text
