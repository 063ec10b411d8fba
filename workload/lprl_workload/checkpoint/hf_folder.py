"""Write a BF16 Hugging Face folder from a stream of weights: sharded safetensors, index, config, tokenizer."""

import json
import logging
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor

from lprl_api.model.formats import Bf16
from lprl_api.model.model_shape import ModelShape
from lprl_workload.data import NamedTensor
from lprl_workload.folder.files import SUFFIX
from lprl_workload.folder.model import FILE_KEY
from lprl_workload.folder.untrained import NOTE, note
from lprl_workload.hf.chosen import chosen_of
from lprl_workload.hf.untrained import further_layers, untrained_weights
from lprl_workload.io.parts import FileRecord, record_of, write_part
from lprl_workload.io.tensor_file import write_tensors
from lprl_workload.process.movement import here
from lprl_workload.quant.config_json import strip_quantization
from lprl_workload.sync.assemble import gather
from lprl_workload.sync.manifest import ServedAs, WeightSource
from lprl_workload.sync.peers import Peers
from lprl_workload.sync.routes import route

log = logging.getLogger(__name__)

SHARD_BYTES = 4 * 1000 * 1000 * 1000
"""Largest shard; also the most weights held at a time."""
ROUND_BYTES = 512 * 1024 * 1024
"""Weights put together at a time."""
NOT_COPIED = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".onnx", ".h5", ".msgpack")
OWN_FILES = ("config.json", "model.safetensors.index.json", "manifest.json", "conversion_report.json", NOTE)
MAX_COPIED_BYTES = 256 * 1024 * 1024
"""Tokenizers, templates and licences are far smaller; anything larger beside a model is not one of them."""


def write_trained(folder: Path, weights: WeightSource, peers: Peers, source: Path, shape: ModelShape) -> tuple[FileRecord, ...]:
    """Fill the existing `folder` with the trained weights and what config.json promises beside them: the source's, with a note.

    On every rank; the first one writes, durably, and returns its files. Raises UserError when the source cannot be read, and on all
    ranks when one fails.
    """
    writer = ModelWriter(folder, source) if peers.rank == 0 else None
    fmt = Bf16()
    routes = route(weights.manifest(), (), ROUND_BYTES, ServedAs(fmt, chosen_of(source, fmt, shape)), senders=(0,))
    gather(weights, routes, peers, writer.add if writer else _unexpected)
    if writer is None:
        return ()
    return finish_trained(writer, source, shape)


def finish_trained(writer: "ModelWriter", source: Path, shape: ModelShape) -> tuple[FileRecord, ...]:
    """Add to a folder of trained weights what its source promises beside them; returns the folder's files."""
    layers: set[int] = set()
    further = further_layers(source, shape)
    for item in untrained_weights(source, shape):
        layer = further(item.name)
        layers |= {layer} if layer is not None else set()
        writer.add(item)
    if not layers:
        return writer.finish()
    log.info("checkpoint: layers %s (multi-token prediction) are the source's, not trained", sorted(layers))
    return *writer.finish(), writer.write(NOTE, json.dumps(note(sorted(layers)), indent=2) + "\n")


def _unexpected(item: NamedTensor) -> None:
    raise AssertionError(f"given {item.name}: only rank 0 writes")


def write_model(folder: Path, weights: Iterable[NamedTensor], source: Path, shard_bytes: int = SHARD_BYTES) -> None:
    """Fill the existing, empty `folder` with a model that transformers loads: every tensor of `weights`, in order (see ModelWriter)."""
    writer = ModelWriter(folder, source, shard_bytes)
    for item in weights:
        writer.add(item)
    writer.finish()


class ModelWriter:
    """Writes a model folder tensor by tensor: `add` each under its Hugging Face name, in a fixed order, then `finish`."""

    def __init__(self, folder: Path, source: Path, shard_bytes: int = SHARD_BYTES) -> None:
        """Begin an empty folder.

        Args:
            folder: existing and empty.
            source: folder whose config.json (quantisation removed) and tokenizer files are taken.
            shard_bytes: bound of one file; a larger tensor gets a file of its own.

        """
        self._folder, self._source, self._bound = folder, source, shard_bytes
        self._shards: list[tuple[list[str], int, FileRecord]] = []
        self._waiting: dict[str, Tensor] = {}
        self._size = 0
        self._files: list[FileRecord] = []

    def add(self, item: NamedTensor) -> None:
        """Take one tensor."""
        here.tick()
        nbytes = item.tensor.numel() * item.tensor.element_size()
        if self._size + nbytes > self._bound:
            self._flush()
        self._waiting[item.name] = item.tensor.detach().cpu().contiguous()
        self._size += nbytes

    def write(self, name: str, text: str) -> FileRecord:
        """Write a small file, durably."""
        return write_part(self._folder / name, text.encode())

    def finish(self) -> tuple[FileRecord, ...]:
        """Write what is left, config and tokenizer, and name the shards; returns all files, which are durable."""
        self._files += _copy_side_files(self._source, self._folder)
        config: dict[str, Any] = strip_quantization(json.loads((self._source / "config.json").read_text()))
        for key in ("torch_dtype", FILE_KEY):  # the weights have other file names here
            config.pop(key, None)
        config["dtype"] = "bfloat16"
        self._files.append(self.write("config.json", json.dumps(config, indent=2, sort_keys=True) + "\n"))
        self._flush()
        self._name_shards()
        return tuple(self._files)

    def _flush(self) -> None:
        if self._waiting:
            path = self._folder / f"part-{len(self._shards):05d}.safetensors"
            record = write_tensors(self._waiting, path, metadata={"format": "pt"})
            self._shards.append((list(self._waiting), self._size, record))
        self._waiting, self._size = {}, 0

    def _name_shards(self) -> None:
        if len(self._shards) == 1:
            self._name(self._shards[0][2], "model.safetensors")
            return
        weight_map: dict[str, str] = {}
        for number, (names, _, record) in enumerate(self._shards):
            final = f"model-{number + 1:05d}-of-{len(self._shards):05d}.safetensors"
            self._name(record, final)
            weight_map |= dict.fromkeys(names, final)
        index = {"metadata": {"total_size": sum(nbytes for _, nbytes, _ in self._shards)}, "weight_map": dict(sorted(weight_map.items()))}
        self._files.append(self.write("model.safetensors.index.json", json.dumps(index, indent=2) + "\n"))

    def _name(self, record: FileRecord, final: str) -> None:
        (self._folder / record.path).rename(self._folder / final)
        self._files.append(record.model_copy(update={"path": final}))


def _copy_side_files(source: Path, folder: Path) -> list[FileRecord]:
    found = []
    for path in sorted(source.iterdir()):
        if not path.is_file() or path.name in OWN_FILES or path.name.startswith(".") or path.suffix in NOT_COPIED:
            continue
        if f"{SUFFIX}." in path.name:
            continue  # the index of a variant, whose shards are not copied
        # Code from a model folder is never run, so it is not passed on either.
        if path.suffix != ".py" and path.stat().st_size <= MAX_COPIED_BYTES:
            shutil.copyfile(path, folder / path.name)
            found.append(record_of(folder / path.name, path.name))
    return found
