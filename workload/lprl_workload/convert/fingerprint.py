"""The fingerprint of a source: cheap to take (headers and samples, not terabytes), different for different weights.

It covers the volume's identity, every small file's bytes, and of every shard: name, size, mtime_ns, header bytes and content
samples at fixed positions (the middle of its tensors, and its two ends); and what lies in the shards but is not the model. So a
fine-tune with the headers of its base model has a fingerprint of its own even where sizes and times were preserved. Full
digests, computed while converting, go into the manifest.
"""

import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from lprl_workload.convert.files import side_files
from lprl_workload.folder.contents import FolderContents
from lprl_workload.folder.header import TensorInfo, read_header
from lprl_workload.folder.model import read_contents

SCHEME = "lprl-fingerprint-1"
SAMPLE_BYTES = 4096
MAX_SAMPLES = 512
READERS = 8
"""Shards read at a time: samples wait for the volume, not for the CPU."""


@dataclass(frozen=True, slots=True)
class ShardState:
    """What the fingerprint says of one shard."""

    name: str
    nbytes: int
    mtime_ns: int
    header_sha256: str
    samples_sha256: str


def fingerprint(folder: Path, volume_identity: str, contents: FolderContents | None = None) -> str:
    """Return the fingerprint of a model folder, 64 hexadecimal digits; `contents` where they were read already.

    Raises UserError when the folder is no readable model.
    """
    digest = hashlib.sha256()
    for part in (SCHEME, volume_identity):
        _add(digest, part.encode())
    for name in side_files(folder):
        _add(digest, name.encode())
        _add(digest, hashlib.sha256((folder / name).read_bytes()).digest())
    contents = contents or read_contents(folder)
    for state in shard_states(contents):
        _add(digest, repr((state.name, state.nbytes, state.mtime_ns, state.header_sha256, state.samples_sha256)).encode())
    if contents.ignored:
        # The same files with another index are another model.
        _add(digest, repr(contents.ignored).encode())
    return digest.hexdigest()


def shard_states(contents: FolderContents) -> list[ShardState]:
    """Return the state of every shard, sorted by name."""
    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(lambda name: shard_state(contents.folder / name), contents.shards))


def shard_state(path: Path) -> ShardState:
    """Return the state of one shard. Raises UserError when its header does not fit its size."""
    tensors = read_header(path)
    with path.open("rb") as file:
        stat = os.fstat(file.fileno())
        data_start = 8 + int.from_bytes(os.pread(file.fileno(), 8, 0), "little")
        header = hashlib.sha256(os.pread(file.fileno(), data_start, 0)).hexdigest()
        samples = hashlib.sha256()
        for position in sample_positions(tensors, data_start, stat.st_size):
            samples.update(os.pread(file.fileno(), SAMPLE_BYTES, position))
    return ShardState(path.name, stat.st_size, stat.st_mtime_ns, header, samples.hexdigest())


def sample_positions(tensors: Iterable[TensorInfo], data_start: int, size: int) -> list[int]:
    """Return where samples start: the middle of every tensor (of evenly chosen ones when there are many), and both ends."""
    filled = [tensor for tensor in tensors if tensor.nbytes]
    count = min(len(filled), MAX_SAMPLES)
    chosen = [filled[i * len(filled) // count] for i in range(count)]
    middles = [max(t.start, t.start + (t.nbytes - SAMPLE_BYTES) // 2) for t in chosen]
    return sorted({data_start, *middles, max(data_start, size - SAMPLE_BYTES)})


def _add(digest: "hashlib._Hash", part: bytes) -> None:
    """Add one field with its length, so that no two lists of fields hash alike."""
    digest.update(len(part).to_bytes(8, "little"))
    digest.update(part)
