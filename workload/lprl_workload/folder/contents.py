"""What a folder's model is: the files that count, and of every tensor the shard that counts. Every part of lprl asks here.

Files are chosen by `files.py`; the index then says where each tensor is: other copies of it, and tensors the index does not name,
are not the model. What remains is held against config.json (`architecture.py`): a tensor that is missing, misshapen or unknown is
refused here, before anything is converted or started.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from lprl_api.errors import UserError
from lprl_workload.folder.files import INDEX_FILE, INDEX_REMEDY, choose_files, shown
from lprl_workload.folder.header import TensorInfo, read_header, read_json
from lprl_workload.quant.rule import Ruled


@dataclass(frozen=True)
class FolderContents:
    """The tensors of a folder's model: what every reader of the folder reads, and nothing else."""

    folder: Path
    shards: Mapping[str, tuple[TensorInfo, ...]]
    """File name -> tensors that count, in file order; file names sorted. Files without one are left out."""
    ignored: tuple[tuple[str, str], ...] = ()
    """(file, tensor) of what lies in the files that count and is not the model."""
    notes: tuple[str, ...] = ()
    """What was ignored, or read in an unusual way, and why; one line each."""
    ruled: Ruled | None = None
    """What the rule says of a model without a table; None for the families with one."""
    where: Mapping[str, str] = field(init=False)
    """Tensor name -> file name."""
    tensors: Mapping[str, TensorInfo] = field(init=False)

    def __post_init__(self) -> None:
        """Index the tensors by name."""
        object.__setattr__(self, "where", {t.name: shard for shard, tensors in self.shards.items() for t in tensors})
        object.__setattr__(self, "tensors", {t.name: t for tensors in self.shards.values() for t in tensors})

    def without(self, names: Iterable[str], note: str) -> "FolderContents":
        """Return the contents without some tensors, and with a note on why."""
        gone = set(names)
        if not gone:
            return self
        kept = {shard: tuple(t for t in tensors if t.name not in gone) for shard, tensors in self.shards.items()}
        dropped = tuple((self.where[name], name) for name in sorted(gone))
        filled = {shard: tensors for shard, tensors in kept.items() if tensors}
        return replace(
            self, shards=filled, ignored=(*self.ignored, *dropped), notes=(*self.notes, f"ignored: {shown(sorted(gone))}: {note}")
        )

    def path(self, name: str) -> Path:
        """Return the file a tensor is in."""
        return self.folder / self.where[name]


def stored_tensors(folder: Path) -> FolderContents:
    """Return the tensors that count by files and index, not yet held against config.json.

    Raises UserError naming file or tensor: see `choose_files`; a damaged file, an index that does not fit its shards, and
    without an index a tensor in two files.
    """
    weight_map = _weight_map(folder)
    files, notes = choose_files(str(folder), _names(folder), weight_map)
    shards = {name: read_header(folder / name) for name in files}
    if weight_map is None:
        return _without_index(folder, shards, notes)
    there = {shard: {tensor.name for tensor in tensors} for shard, tensors in shards.items()}
    for name, shard in weight_map.items():
        if name not in there[shard]:
            other = next((other for other, names in there.items() if name in names), "no shard")
            raise UserError(f"{folder / INDEX_FILE}: tensor {name}: is in {other}, the index says {shard}", INDEX_REMEDY)
    return _by_index(folder, shards, weight_map, notes)


def _by_index(
    folder: Path, shards: Mapping[str, tuple[TensorInfo, ...]], weight_map: Mapping[str, str], notes: tuple[str, ...]
) -> FolderContents:
    kept = {shard: tuple(t for t in tensors if weight_map.get(t.name) == shard) for shard, tensors in shards.items()}
    left = [(shard, t.name) for shard, tensors in shards.items() for t in tensors if weight_map.get(t.name) != shard]
    stale = [f"{name} in {shard}" for shard, name in left if name in weight_map]
    # Engines and transformers read whole files one after the other, and keep what they read last.
    later = [name for shard, name in left if name in weight_map and shard > weight_map[name]]
    unnamed = [f"{name} in {shard}" for shard, name in left if name not in weight_map]
    if stale:
        also = f"; transformers takes the copy in the last file (of {shown(later)}): remove it" if later else ""
        notes = (*notes, f"ignored: {shown(stale)}: {INDEX_FILE} says that another file has it{also}")
    if unnamed:
        notes = (*notes, f"ignored: {shown(unnamed)}: {INDEX_FILE} does not name it")
    return FolderContents(folder, kept, tuple(left), notes)


def _without_index(folder: Path, shards: Mapping[str, tuple[TensorInfo, ...]], notes: tuple[str, ...]) -> FolderContents:
    where: dict[str, str] = {}
    for shard, tensors in shards.items():
        for tensor in tensors:
            if tensor.name in where:
                what = f"{folder}: tensor {tensor.name}: in both {where[tensor.name]} and {shard}"
                raise UserError(what, f"remove the file that does not belong there, or add {INDEX_FILE}, which says which do")
            where[tensor.name] = shard
    return FolderContents(folder, {shard: tensors for shard, tensors in shards.items() if tensors}, (), notes)


def _weight_map(folder: Path) -> dict[str, str] | None:
    index = folder / INDEX_FILE
    if not os.path.lexists(index):
        return None
    weight_map = read_json(index, unique=True).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map or not all(isinstance(v, str) for v in weight_map.values()):
        raise UserError(f"{index}: weight_map is missing or malformed", INDEX_REMEDY)
    return weight_map


def _names(folder: Path) -> tuple[str, ...]:
    """Return the files at the top of a folder (links to files included). Raises UserError when there is no folder."""
    try:
        found = sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
        raise UserError(f"{folder}: cannot be read as a folder ({error.strerror})", "name the folder of a Hugging Face model") from error
    # A link that leads nowhere counts: where it would be read, that is an error, not another model.
    return tuple(path.name for path in found if path.is_file() or (path.is_symlink() and not path.exists()))
