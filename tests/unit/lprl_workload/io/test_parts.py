"""Files of a checkpoint are hashed while they are written, and what is read of them is compared."""

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lprl_api.errors import StorageFullError
from lprl_workload.io import parts
from lprl_workload.io.parts import FileRecord, PartReader, PartWriter, intact, record_of, write_part
from lprl_workload.io.tensor_file import write_tensors
from lprl_workload.process.errors import DamagedError

DATA = bytes(range(256)) * 11


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "CHUNK_BYTES", 1000)
    monkeypatch.setattr(parts, "PIECE_BYTES", 300)


def flip(path: Path, at: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1
    path.write_bytes(raw)


def test_what_a_writer_says_of_a_short_file_is_its_sha256(tmp_path: Path) -> None:
    record = write_part(tmp_path / "state.json", DATA)
    assert record == FileRecord(path="state.json", nbytes=len(DATA), sha256=hashlib.sha256(DATA).hexdigest())
    assert (tmp_path / "state.json").read_bytes() == DATA


@pytest.mark.usefixtures("small_chunks")
def test_a_long_file_is_hashed_in_chunks_however_it_is_written(tmp_path: Path) -> None:
    with PartWriter(tmp_path / "a") as writer:
        for start in range(0, len(DATA), 777):
            writer.write(DATA[start : start + 777])
    chunks = tuple(hashlib.sha256(DATA[start : start + 1000]).hexdigest() for start in (0, 1000, 2000))
    assert writer.record.chunks == chunks
    assert writer.record == record_of(tmp_path / "a", "a") and intact(tmp_path / "a", writer.record)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize(("offset", "nbytes"), [(0, 0), (0, 1), (999, 2), (1000, 1000), (500, 2000), (0, len(DATA))])
def test_a_reader_hands_out_what_was_written(tmp_path: Path, offset: int, nbytes: int) -> None:
    record = write_part(tmp_path / "a", DATA)
    for known in (record, None):
        with PartReader(tmp_path / "a", known) as reader:
            assert reader.read(offset, nbytes) == DATA[offset : offset + nbytes]


@pytest.mark.usefixtures("small_chunks")
def test_a_flipped_bit_is_found_where_it_is_read_and_only_there(tmp_path: Path) -> None:
    record = write_part(tmp_path / "a", DATA)
    flip(tmp_path / "a", 1500)
    with PartReader(tmp_path / "a", record) as reader:
        assert reader.read(0, 1000) == DATA[:1000] and reader.read(2000, 816) == DATA[2000:]
        with pytest.raises(DamagedError, match=r"a: bytes 1000 and following are not what was written"):
            reader.read(990, 20)
    assert not intact(tmp_path / "a", record) and not intact(tmp_path / "a", record, [1]) and intact(tmp_path / "a", record, [0, 2])


@pytest.mark.usefixtures("small_chunks")
def test_a_long_file_of_an_earlier_version_is_compared_whole(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(DATA)
    record = FileRecord(path="a", nbytes=len(DATA), sha256=hashlib.sha256(DATA).hexdigest())
    with PartReader(tmp_path / "a", record) as reader:
        assert reader.read(1990, 20) == DATA[1990:2010]
    flip(tmp_path / "a", 2500)
    with pytest.raises(DamagedError, match="its content is not what was written"):
        PartReader(tmp_path / "a", record)


@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_file_that_is_not_there_in_its_size_is_not_opened(tmp_path: Path, damage: str) -> None:
    record = write_part(tmp_path / "a", DATA)
    (tmp_path / "a").write_bytes(DATA[:-1])
    if damage == "gone":
        (tmp_path / "a").unlink()
    with pytest.raises(DamagedError, match="2815 bytes, 2816 were written" if damage == "cut" else "no such file"):
        PartReader(tmp_path / "a", record)


def test_a_full_volume_is_told_with_the_file() -> None:
    with pytest.raises(StorageFullError, match=r"/dev/full: no space left"):
        write_part(Path("/dev/full"), DATA)


def test_tensors_are_written_as_the_library_reads_them(tmp_path: Path) -> None:
    tensors = {
        "scalar": torch.tensor(3.5),
        "odd": torch.arange(5, dtype=torch.uint8),
        "empty": torch.empty(0, 4),
        "rows": torch.randn(6, 4).T,
        "half": torch.randn(3, dtype=torch.bfloat16),
    }
    record = write_tensors(tensors, tmp_path / "t.safetensors", {"format": "pt"})
    found = load_file(tmp_path / "t.safetensors")
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype for name, tensor in tensors.items())
    assert record == record_of(tmp_path / "t.safetensors", "t.safetensors")
