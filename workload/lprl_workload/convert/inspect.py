"""Look at a source without believing it: bounded parsing of config.json and every header, then shape, size and fingerprint."""

import re
from pathlib import Path

from lprl_api.errors import UserError
from lprl_api.formats import Bf16, Fp8Block, Fp8Channel, Fp8Tensor, Int4Group
from lprl_api.hf_config import shape_from_config
from lprl_api.model_shape import Inspection, ModelShape, SourceQuantization
from lprl_api.names import TERMINATION_MESSAGE_BYTES
from lprl_workload.convert.disk import free_bytes
from lprl_workload.convert.files import CONFIG
from lprl_workload.convert.fingerprint import fingerprint
from lprl_workload.convert.index import SourceIndex, read_json, total_bytes
from lprl_workload.quant.config_json import parse_quantization_config

_LAYER = re.compile(r"(?:^|\.)(?:model|language_model)\.(?:.*\.)?layers\.(\d+)\.")
_VISION = re.compile(r"(?:^|\.)(?:vision|visual|audio)")


def inspect_folder(folder: Path, volume_identity: str, free_space_at: Path | None = None) -> Inspection:
    """Return what the operator needs to know of a model folder.

    Raises UserError naming file, key or tensor when config.json, headers and index do not make a model this project knows.
    """
    config = read_json(folder / CONFIG)
    shape = shape_from_config(config)
    quantization = source_quantization(config)
    index = SourceIndex.open(folder)
    check_tensors(index, shape)
    return Inspection(
        shape=shape,
        fingerprint=fingerprint(folder, volume_identity),
        total_bytes=total_bytes(index.tensors.values()),
        tensors=len(index.tensors),
        shards=len(index.shards),
        quantization=quantization,
        free_bytes=free_bytes(free_space_at) if free_space_at is not None else None,
    )


def source_quantization(config: dict[str, object]) -> SourceQuantization:
    """Return a source's own precision, normalised. Raises UserError for a scheme that no format of ours says."""
    fmt = parse_quantization_config(config)
    match fmt:
        case Bf16():
            return SourceQuantization()
        case Fp8Block():
            return SourceQuantization(format="fp8-block", block_size=fmt.block_size)
        case Fp8Channel() | Fp8Tensor():
            return SourceQuantization(format=fmt.kind)
        case Int4Group():
            return SourceQuantization(format="int4-group", group_size=fmt.group_size, scope=fmt.scope.value)


def check_tensors(index: SourceIndex, shape: ModelShape) -> None:
    """Refuse a folder whose tensors contradict its config.json.

    Raises UserError when the embedding has other dimensions, or decoder layers are missing or more than config.json says.
    """
    for name, tensor in index.tensors.items():
        if name.endswith("embed_tokens.weight") and not _VISION.search(name) and _layer_of(name) is None:
            if tensor.shape != (shape.vocab, shape.hidden):
                raise UserError(f"tensor {name}: shape {list(tensor.shape)}; config.json says [{shape.vocab}, {shape.hidden}]")
            break
    else:
        raise UserError(f"{index.folder}: no tensor named ...embed_tokens.weight", "only Hugging Face decoder models can be converted")
    found = {layer for name in index.tensors if (layer := _layer_of(name)) is not None}
    wanted = set(range(shape.layers))
    missing, extra = sorted(wanted - found), sorted(found - set(range(shape.layers + shape.mtp_layers)))
    if missing:
        what = f"{index.folder}: no tensors of layer {missing[0]}; config.json says {shape.layers} layers"
        raise UserError(what, "complete the download")
    if extra:
        raise UserError(f"{index.folder}: tensors of layer {extra[0]}; config.json says num_hidden_layers {shape.layers}")


def _layer_of(name: str) -> int | None:
    found = None if _VISION.search(name) else _LAYER.search(name)
    return int(found[1]) if found else None


def inspection_message(inspection: Inspection) -> str:
    """Return the inspection as JSON of at most 4096 bytes, the inspect Job's termination message."""
    text = inspection.model_dump_json(by_alias=True)
    if len(text.encode()) > TERMINATION_MESSAGE_BYTES:
        raise UserError(f"inspection: {len(text.encode())} bytes, a termination message holds {TERMINATION_MESSAGE_BYTES}")
    return text
