"""Shards of a remote folder are fetched side by side, and each on its own is resumed, checked and given up."""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lprl_api.errors import UserError
from lprl_workload.convert.download import download, is_complete
from lprl_workload.convert.remote import FILES_AT_ONCE, ChangedDownload, DownloadProgress, InterruptedDownload, RemoteFile

SHARDS = {f"model-{n:05d}-of-00008.safetensors": bytes([n]) * 4000 for n in range(1, 9)}
INDEX = {"weight_map": {f"w{n}": name for n, name in enumerate(SHARDS)}}
CONTENT = {"config.json": b"{}", "model.safetensors.index.json": json.dumps(INDEX).encode(), **SHARDS}


class Store:
    """A remote of small chunks."""

    description = "some/model@main"

    def __init__(self) -> None:
        self.offsets: dict[str, list[int]] = {}

    def list(self) -> tuple[RemoteFile, ...]:
        return tuple(RemoteFile(name, len(data), f"v-{name}") for name, data in CONTENT.items())

    def read(self, file: RemoteFile, offset: int) -> Iterator[bytes]:
        self.offsets.setdefault(file.name, []).append(offset)
        for start in range(offset, file.nbytes, 1000):
            yield from self.chunk(file, start)

    def chunk(self, file: RemoteFile, start: int) -> Iterator[bytes]:
        yield CONTENT[file.name][start : start + 1000]


def test_shards_are_fetched_side_by_side_and_what_is_told_only_grows(tmp_path: Path) -> None:
    together = threading.Barrier(FILES_AT_ONCE, timeout=180)  # passes only when so many are under way

    class Waiting(Store):
        def chunk(self, file: RemoteFile, start: int) -> Iterator[bytes]:
            if file.name in SHARDS and start == 0:
                together.wait()
            yield from super().chunk(file, start)

    told: list[DownloadProgress] = []
    download(Waiting(), tmp_path, told.append)
    assert is_complete(tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in CONTENT} == CONTENT
    assert [p.bytes_done for p in told] == sorted(p.bytes_done for p in told)
    assert told[-1].bytes_done == told[-1].bytes_total == sum(map(len, CONTENT.values()))


def test_every_shard_goes_on_where_its_own_connection_broke(tmp_path: Path) -> None:
    class Breaking(Store):
        def chunk(self, file: RemoteFile, start: int) -> Iterator[bytes]:
            if start == 2000 and file.name in SHARDS and self.offsets[file.name] == [0]:
                raise InterruptedDownload("connection reset")
            yield from super().chunk(file, start)

    store = Breaking()
    download(store, tmp_path, lambda progress: None, lambda seconds: None)
    assert all(store.offsets[name] == [0, 2000] for name in SHARDS)
    assert {name: (tmp_path / name).read_bytes() for name in SHARDS} == SHARDS


def test_a_shard_that_cannot_be_fetched_stops_the_others_and_is_what_is_told(tmp_path: Path) -> None:
    broken = list(SHARDS)[4]

    class Changed(Store):
        def chunk(self, file: RemoteFile, start: int) -> Iterator[bytes]:
            if file.name == broken:
                raise ChangedDownload(f"{file.name}: other bytes")
            if file.name in SHARDS and start >= 1000:
                time.sleep(0.3)
            yield from super().chunk(file, start)

    store = Changed()
    with pytest.raises(UserError, match=f"changed while it was downloaded \\({broken}"):
        download(store, tmp_path, lambda progress: None)
    assert not is_complete(tmp_path)
    assert not any((tmp_path / name).exists() for name in SHARDS), "none was fetched to its end for nothing"
    again = Store()
    download(again, tmp_path, lambda progress: None)
    assert is_complete(tmp_path) and any(offsets[0] > 0 for offsets in again.offsets.values()), "what was there is kept"
