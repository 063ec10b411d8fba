"""Write a BF16 Hugging Face folder from a stream of weights: sharded safetensors, index, config, tokenizer."""

import json
import logging
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from lprl_api.model.model_shape import ModelShape
from lprl_workload.data import NamedTensor
from lprl_workload.folder.files import SUFFIX
from lprl_workload.folder.model import FILE_KEY
from lprl_workload.hf.slots import further_layer
from lprl_workload.hf.untrained import NOTE, note, untrained_weights
from lprl_workload.io.tensor_file import save_tensors
from lprl_workload.process.movement import here
from lprl_workload.quant.config_json import strip_quantization

log = logging.getLogger(__name__)

SHARD_BYTES = 4 * 1000 * 1000 * 1000
"""Largest shard; also the most weights held at a time."""
NOT_COPIED = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".onnx", ".h5", ".msgpack")
OWN_FILES = ("config.json", "model.safetensors.index.json", "manifest.json", "conversion_report.json", NOTE)
MAX_COPIED_BYTES = 256 * 1024 * 1024
"""Tokenizers, templates and licences are far smaller; anything larger beside a model is not one of them."""


def write_trained(folder: Path, weights: Iterable[NamedTensor], source: Path, shape: ModelShape) -> None:
    """Fill the existing `folder` with trained `weights` and what config.json promises beside them: the source's, with a note.

    Raises UserError when the source cannot be read.
    """
    layers: set[int] = set()

    def all_weights() -> Iterator[NamedTensor]:
        yield from weights
        for item in untrained_weights(source, shape):
            layers.add(further_layer(item.name, shape) or shape.layers)
            yield item

    write_model(folder, all_weights(), source)
    if layers:
        (folder / NOTE).write_text(json.dumps(note(sorted(layers)), indent=2) + "\n")
        log.info("checkpoint: layers %s (multi-token prediction) are the source's, not trained", sorted(layers))


def write_model(folder: Path, weights: Iterable[NamedTensor], source: Path, shard_bytes: int = SHARD_BYTES) -> None:
    """Fill the existing `folder` with a model that transformers loads.

    Args:
        folder: an empty folder.
        weights: every checkpoint tensor under its Hugging Face name, in a fixed order.
        source: folder whose config.json (quantisation removed) and tokenizer files are taken.
        shard_bytes: bound of one file; a larger tensor gets a file of its own.

    """
    _copy_side_files(source, folder)
    config: dict[str, Any] = strip_quantization(json.loads((source / "config.json").read_text()))
    for key in ("torch_dtype", FILE_KEY):  # the weights have other file names here
        config.pop(key, None)
    config["dtype"] = "bfloat16"
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    shards = _write_shards(folder, weights, shard_bytes)
    _name_shards(folder, shards)


def _copy_side_files(source: Path, folder: Path) -> None:
    for path in sorted(source.iterdir()):
        if not path.is_file() or path.name in OWN_FILES or path.name.startswith(".") or path.suffix in NOT_COPIED:
            continue
        if f"{SUFFIX}." in path.name:
            continue  # the index of a variant, whose shards are not copied
        # Code from a model folder is never run, so it is not passed on either.
        if path.suffix != ".py" and path.stat().st_size <= MAX_COPIED_BYTES:
            shutil.copyfile(path, folder / path.name)


def _write_shards(folder: Path, weights: Iterable[NamedTensor], shard_bytes: int) -> list[tuple[list[str], int]]:
    """Write part-00000.safetensors, ...; returns names and bytes of each."""
    shards: list[tuple[list[str], int]] = []
    waiting: dict[str, Tensor] = {}
    size = 0

    def flush() -> None:
        nonlocal waiting, size
        if waiting:
            save_tensors(waiting, folder / f"part-{len(shards):05d}.safetensors", metadata={"format": "pt"})
            shards.append((list(waiting), size))
        waiting, size = {}, 0

    for item in weights:
        here.tick()
        nbytes = item.tensor.numel() * item.tensor.element_size()
        if size + nbytes > shard_bytes:
            flush()
        waiting[item.name] = item.tensor.detach().cpu().contiguous()
        size += nbytes
    flush()
    return shards


def _name_shards(folder: Path, shards: list[tuple[list[str], int]]) -> None:
    if len(shards) == 1:
        (folder / "part-00000.safetensors").rename(folder / "model.safetensors")
        return
    weight_map: dict[str, str] = {}
    for number, (names, _) in enumerate(shards):
        final = f"model-{number + 1:05d}-of-{len(shards):05d}.safetensors"
        (folder / f"part-{number:05d}.safetensors").rename(folder / final)
        weight_map |= dict.fromkeys(names, final)
    index = {"metadata": {"total_size": sum(nbytes for _, nbytes in shards)}, "weight_map": dict(sorted(weight_map.items()))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
