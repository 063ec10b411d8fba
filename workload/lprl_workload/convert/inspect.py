"""Look at a source without believing it: bounded parsing of config.json and every header, then shape, size and fingerprint."""

import re
from functools import cache
from pathlib import Path

from lprl_api.errors import UserError
from lprl_api.formats import Bf16, Fp8Block, Fp8Channel, Fp8Tensor, Int4Group, WeightFormat
from lprl_api.model_shape import Inspection, ModelShape, SourceQuantization
from lprl_api.names import TERMINATION_MESSAGE_BYTES
from lprl_api.weights import LINEAR_KINDS, layer_weights
from lprl_workload.convert.disk import free_bytes
from lprl_workload.convert.fingerprint import fingerprint
from lprl_workload.convert.index import SourceIndex, TensorInfo, total_bytes
from lprl_workload.convert.plan_shard import FLOATS
from lprl_workload.convert.source_config import read_format, read_shape
from lprl_workload.quant.select import kind_of, text_prefix

_LAYER = re.compile(r"(?:^|\.)(?:model|language_model)\.(?:.*\.)?layers\.(\d+)\.")
_EXPERT = re.compile(r"\.experts\.\d+\.")
MIXED = "config.json and weights are of different models: copy both from the same place again"
_VISION = re.compile(r"(?:^|\.)(?:vision|visual|audio)")


def inspect_folder(folder: Path, volume_identity: str, free_space_at: Path | None = None) -> Inspection:
    """Return what the operator needs to know of a model folder.

    Raises UserError naming file, key or tensor when config.json, headers and index do not make a model this project knows.
    """
    shape, fmt = read_shape(folder), read_format(folder)
    index = SourceIndex.open(folder)
    check_tensors(index, shape)
    prefix = text_prefix(index.tensors)
    for tensor in index.tensors.values():
        if prefix is None or tensor.name.startswith(prefix):  # a tower's tensors are copied, whatever they are
            check_linear(index, tensor, shape, fmt)
    return Inspection(
        shape=shape,
        fingerprint=fingerprint(folder, volume_identity),
        total_bytes=total_bytes(index.tensors.values()),
        tensors=len(index.tensors),
        shards=len(index.shards),
        quantization=source_quantization(fmt),
        free_bytes=free_bytes(free_space_at) if free_space_at is not None else None,
    )


def source_quantization(fmt: WeightFormat) -> SourceQuantization:
    """Return a source's own precision, normalised."""
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
                raise _contradicts(index, tensor, (shape.vocab, shape.hidden))
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
        what = f"{index.folder}: tensors of layer {extra[0]}; config.json says num_hidden_layers {shape.layers}"
        raise UserError(what, MIXED)


def check_linear(index: SourceIndex, tensor: TensorInfo, shape: ModelShape, fmt: WeightFormat) -> None:
    """Refuse a linear weight of a decoder layer whose dtype no format here reads, or whose shape contradicts config.json."""
    packed = tensor.name.endswith(".weight_packed")
    name = tensor.name.removesuffix("_packed")
    if kind_of(name) is None or (isinstance(fmt, Bf16) and packed):
        return
    quantized = "I32" if packed else "F8_E4M3"
    fits = FLOATS if isinstance(fmt, Bf16) else (*FLOATS, quantized)
    if tensor.dtype not in fits:
        where = index.folder / index.where[tensor.name]
        what = f"{where}: tensor {tensor.name}: dtype {tensor.dtype}; needs {', '.join(fits)} with this config.json"
        raise UserError(what, "save the model in bfloat16, or restore the quantization_config it was published with")
    found = _LAYER.search(name)
    if found is None or int(found[1]) >= shape.layers:
        return  # multi-token prediction: config.json does not say all of its dimensions
    wanted = _linear_shapes(shape, int(found[1])).get(_EXPERT.sub(".experts.*.", name[found.end() :]))
    if wanted is not None and packed:
        wanted = (wanted[0], -(-wanted[1] // 8))
    if wanted is not None and tensor.shape != wanted:
        raise _contradicts(index, tensor, wanted)


@cache
def _linear_shapes(shape: ModelShape, layer: int) -> dict[str, tuple[int, int]]:
    """Return [N, K] of the linear weights of a layer by their names in it, experts as `*`."""
    return {f"{w.module}.weight": (w.rows, w.cols) for w in layer_weights(shape, layer) if w.kind in LINEAR_KINDS}


def _contradicts(index: SourceIndex, tensor: TensorInfo, wanted: tuple[int, ...]) -> UserError:
    where = index.folder / index.where[tensor.name]
    return UserError(f"{where}: tensor {tensor.name}: shape {list(tensor.shape)}; config.json says {list(wanted)}", MIXED)


def _layer_of(name: str) -> int | None:
    found = None if _VISION.search(name) else _LAYER.search(name)
    return int(found[1]) if found else None


def inspection_message(inspection: Inspection) -> str:
    """Return the inspection as JSON of at most 4096 bytes, the inspect Job's termination message."""
    text = inspection.model_dump_json(by_alias=True)
    if len(text.encode()) > TERMINATION_MESSAGE_BYTES:
        raise UserError(f"inspection: {len(text.encode())} bytes, a termination message holds {TERMINATION_MESSAGE_BYTES}")
    return text
