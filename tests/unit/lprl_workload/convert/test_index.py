import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lprl_api.errors import UserError
from lprl_workload.convert.writer import OutputTensor, ShardWriter, layout
from lprl_workload.folder.contents import stored_tensors
from lprl_workload.folder.files import INDEX_FILE
from lprl_workload.folder.header import read_header
from lprl_workload.io.dtypes import DTYPES


def _file(path: Path, header: object, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def entry(dtype: object = "F32", shape: object = (2,), offsets: object = (0, 8)) -> dict[str, object]:
    return {"x": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


@pytest.mark.parametrize(
    ("header", "data", "match"),
    [
        pytest.param(b"not json", b"", "not valid JSON", id="json"),
        pytest.param(b"[]", b"", "no JSON object", id="list"),
        pytest.param(b"[" * 200_000, b"", "not valid JSON", id="nesting"),
        pytest.param({"x": 1}, b"", "no object", id="entry"),
        pytest.param(b'{"x": {}, "x": {}}', b"", "'x' is in it twice", id="name-twice"),
        pytest.param(entry(dtype="F99"), b"\0" * 8, "dtype 'F99' is not supported; fits F64", id="dtype"),
        pytest.param(entry(dtype=["F32"]), b"\0" * 8, "dtype", id="dtype-list"),
        pytest.param(entry(shape=(-2,)), b"\0" * 8, "malformed", id="negative"),
        pytest.param(entry(shape=(True, 2)), b"\0" * 8, "malformed", id="boolean"),
        pytest.param(entry(offsets=(0,)), b"\0" * 8, "malformed", id="one-offset"),
        pytest.param(entry(offsets=(0, 4)), b"\0" * 8, r"4 bytes, F32 \[2\] needs 8", id="size"),
        pytest.param(entry(offsets=(8, 16)), b"\0" * 16, "starts at byte", id="hole"),
        pytest.param(entry(), b"\0" * 4, "truncated or corrupt", id="truncated"),
        pytest.param(entry(), b"\0" * 12, "truncated or corrupt", id="trailing"),
    ],
)
def test_malformed_headers_are_user_errors(header: object, data: bytes, match: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=match):
        read_header(_file(tmp_path / "x.safetensors", header, data))


@pytest.mark.parametrize("content", [b"", b"\1\2\3", (2**63).to_bytes(8, "little"), (100).to_bytes(8, "little") + b"{}"])
def test_header_length_is_bounded(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match="not a safetensors file"):
        read_header(path)


def test_shards_come_from_the_index(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2)}, tmp_path / "1.safetensors")
    save_file({"a": torch.zeros(2)}, tmp_path / "stale.safetensors")
    (tmp_path / INDEX_FILE).write_text(json.dumps({"weight_map": {"a": "1.safetensors"}}))
    index = stored_tensors(tmp_path)
    assert list(index.shards) == ["1.safetensors"]
    assert index.where == {"a": "1.safetensors"}


@pytest.mark.parametrize(
    ("weight_map", "match"),
    [
        pytest.param({"a": "../1.safetensors"}, "no plain .safetensors file name", id="outside"),
        pytest.param({"a": "weights.bin"}, "no plain .safetensors file name", id="pickle"),
        pytest.param({"a": "2.safetensors"}, "missing, but named", id="missing"),
        pytest.param({"a": "1.safetensors", "b": "1.safetensors"}, "tensor b: is in no shard", id="tensor"),
        pytest.param(["a"], "weight_map is missing or malformed", id="list"),
    ],
)
def test_a_wrong_index_is_a_user_error(weight_map: object, match: str, tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2)}, tmp_path / "1.safetensors")
    (tmp_path / INDEX_FILE).write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(UserError, match=match):
        stored_tensors(tmp_path)


def test_a_tensor_in_two_shards_is_a_user_error(tmp_path: Path) -> None:
    for name in ("1", "2"):
        save_file({"a": torch.zeros(2)}, tmp_path / f"{name}.safetensors")
    with pytest.raises(UserError, match=r"tensor a: in both 1\.safetensors and 2\.safetensors") as refused:
        stored_tensors(tmp_path)
    assert str(tmp_path) in refused.value.message and "remove the file" in refused.value.remedy


def test_a_folder_without_safetensors_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no \.safetensors files"):
        stored_tensors(tmp_path)


def test_layout_keeps_the_order_of_large_tensors_and_aligns_everything() -> None:
    tensors = [
        OutputTensor("z", "F8_E4M3", (4, 6)),
        OutputTensor("z_scale", "F32", (3,), last=True),
        OutputTensor("odd", "F8_E4M3", (3, 5)),
        OutputTensor("c", "BF16", (3,)),
        OutputTensor("a", "BF16", (4, 4)),
        OutputTensor("a_shape", "I64", (2,), last=True),
    ]
    header, offsets, size = layout(tensors)
    assert sorted(offsets, key=offsets.__getitem__) == ["z", "a", "a_shape", "z_scale", "c", "odd"]
    for tensor in tensors:
        assert offsets[tensor.name] % DTYPES[tensor.dtype].itemsize == 0
    assert size == len(header) + sum(t.nbytes for t in tensors)


def test_a_written_shard_is_what_the_safetensors_library_reads(tmp_path: Path) -> None:
    weight = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    with ShardWriter(tmp_path / "x.safetensors", [OutputTensor("w", "F32", (2, 3)), OutputTensor("e", "BF16", (0, 4))]) as writer:
        writer.pwrite(memoryview(weight.numpy()).cast("B"), writer.offset("w"))
        assert not (tmp_path / "x.safetensors").exists()
        writer.publish()
    got = load_file(tmp_path / "x.safetensors")
    assert torch.equal(got["w"], weight)
    assert got["e"].shape == (0, 4)
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]
