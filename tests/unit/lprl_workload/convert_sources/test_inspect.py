"""Inspection: what it says, and that hostile or wrong folders are refused before anything is mapped or allocated."""

import json
import os
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lprl_api.errors import UserError
from lprl_api.model.formats import Fp8Block, Int4Group
from lprl_api.names import TERMINATION_MESSAGE_BYTES
from lprl_workload.convert.export import convert_folder
from lprl_workload.convert.fingerprint import SAMPLE_BYTES, fingerprint, sample_positions
from lprl_workload.convert.inspect import inspect_folder, inspection_message
from lprl_workload.folder.header import MAX_HEADER_BYTES, TensorInfo

FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
DOWN = "model.layers.1.mlp.experts.1.down_proj.weight"
GOOD: dict[str, Any] = {"t": {"dtype": "BF16", "shape": [2, 2], "data_offsets": [0, 8]}}


def write_shard(folder: Path, header: object, data: bytes = b"\0" * 8, length: int | None = None) -> None:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    (folder / "model.safetensors.index.json").unlink(missing_ok=True)
    for path in folder.glob("*.safetensors"):
        path.unlink()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(raw) if length is None else length) + raw + data)


def entry(**changes: object) -> dict[str, Any]:
    return {"t": GOOD["t"] | changes}


@pytest.mark.parametrize(
    ("header", "data", "length", "match"),
    [
        pytest.param(GOOD, b"\0" * 8, 1 << 63, "not a safetensors file", id="header-of-8-exabytes"),
        pytest.param(GOOD, b"\0" * 8, MAX_HEADER_BYTES + 1, "not a safetensors file", id="header-over-the-limit"),
        pytest.param(GOOD, b"", 4096, "not a safetensors file", id="header-beyond-the-file"),
        pytest.param(b"{", b"", None, "not valid JSON", id="cut-json"),
        pytest.param(b"[" * 100_000, b"", None, "not valid JSON", id="deep-json"),
        pytest.param(b"\xff\xfe{}", b"", None, "not valid JSON", id="no-text"),
        pytest.param([], b"", None, "no JSON object", id="list"),
        pytest.param({"t": 1}, b"", None, "entry is no object", id="entry"),
        pytest.param(entry(dtype="PICKLE"), b"\0" * 8, None, "dtype 'PICKLE' is not supported", id="dtype"),
        pytest.param(entry(shape=[1 << 62, 1 << 62]), b"\0" * 8, None, r"needs \d+", id="absurd-shape"),
        pytest.param(entry(shape=[-2, -2]), b"\0" * 8, None, "malformed shape", id="negative-shape"),
        pytest.param(entry(shape=[2.0, 2]), b"\0" * 8, None, "malformed shape", id="float-shape"),
        pytest.param(entry(data_offsets=[0, 1 << 40]), b"\0" * 8, None, "needs 8", id="offset-beyond-the-file"),
        pytest.param(entry(data_offsets=[8, 0]), b"\0" * 8, None, "needs 8", id="backwards"),
        pytest.param(entry(data_offsets=[4, 12]), b"\0" * 12, None, "starts at byte", id="gap"),
        pytest.param(GOOD | {"u": GOOD["t"]}, b"\0" * 8, None, "starts at byte", id="overlap"),
        pytest.param(GOOD, b"\0" * 7, None, "truncated or corrupt", id="truncated"),
        pytest.param(GOOD, b"\0" * 9, None, "truncated or corrupt", id="appended"),
    ],
)
def test_hostile_headers(make_model: Any, header: object, data: bytes, length: int | None, match: str) -> None:
    folder = make_model()
    write_shard(folder, header, data, length)
    with pytest.raises(UserError, match=match) as refused:
        inspect_folder(folder, "")
    assert str(folder) in refused.value.message and refused.value.remedy


def test_a_sparse_giant_is_not_read(make_model: Any) -> None:
    """A JSON file of a terabyte costs a stat, not memory."""
    folder = make_model()
    (folder / "tokenizer.json").unlink()
    with (folder / "tokenizer.json").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(UserError, match="at most 268435456 fit"):
        inspect_folder(folder, "")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        pytest.param(lambda f: (f / "config.json").unlink(), "config.json: no such file", id="no-config"),
        pytest.param(
            lambda f: (f / FIRST).write_text("version https://git-lfs.github.com/spec/v1\nsize 9\n"), "pointer of Git LFS", id="lfs"
        ),
        pytest.param(lambda f: (f / "config.json").write_text("{}"), "model_type: missing", id="empty-config"),
        pytest.param(lambda f: next(f.glob("*.safetensors")).unlink(), "missing, but named by", id="no-shard"),
        pytest.param(lambda f: set_config(f, vocab_size=7), r"config.json says \[7, 64\]", id="embedding"),
        pytest.param(lambda f: set_config(f, num_hidden_layers=3), "no tensors of layer 2", id="layer-missing"),
        pytest.param(lambda f: set_config(f, num_hidden_layers=1), "tensors of layer 1", id="layer-too-many"),
        pytest.param(lambda f: set_config(f, quantization_config={"quant_method": "awq"}), "'awq' is not supported", id="foreign-scheme"),
        pytest.param(
            lambda f: set_config(f, quantization_config="yes"), "quantization_config: got 'yes'; needs an object", id="scheme-is-a-text"
        ),
        pytest.param(
            lambda f: set_config(f, model_type="mamba"),
            "model_type mamba cannot be trained here; model_types that can: llama",
            id="unknown-family",
        ),
        pytest.param(
            lambda f: set_config(f, moe_intermediate_size=64),
            r"down_proj.weight: shape \[64, 96\]; config.json says \[64, 64\]",
            id="experts",
        ),
        pytest.param(
            lambda f: rewrite(f, lambda w: w[:, :32].contiguous()), rf"{DOWN}: shape \[64, 32\]; config.json says", id="down-proj"
        ),
        pytest.param(lambda f: rewrite(f, lambda w: w.double()), rf"{DOWN}: dtype F64; needs BF16, F16, F32", id="float64"),
        pytest.param(lambda f: rewrite(f, lambda w: w.to(torch.int8)), rf"{DOWN}: dtype I8; needs BF16, F16, F32", id="int8"),
        pytest.param(lambda f: shutil.copy(f / FIRST, f / SECOND), "tensor .*: is in no shard|is in model", id="duplicate"),
        pytest.param(lambda f: (f / FIRST).write_bytes((f / FIRST).read_bytes()[:-1]), "truncated or corrupt", id="truncated"),
    ],
)
def test_wrong_folders(make_model: Any, change: Any, match: str) -> None:
    """Each refusal says where, what and what to do."""
    folder = make_model()
    change(folder)
    with pytest.raises(UserError, match=match) as refused:
        inspect_folder(folder, "")
    assert str(folder) in refused.value.message and refused.value.remedy


def rewrite(folder: Path, how: Any) -> None:
    """Change one expert's down_proj in place."""
    path = folder / json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"][DOWN]
    tensors = load_file(path)
    tensors[DOWN] = how(tensors[DOWN])
    save_file(tensors, path, metadata={"format": "pt"})


def set_config(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))


def test_inspection_of_every_precision_fits_a_termination_message(make_model: Any, tmp_path: Path) -> None:
    source = make_model()
    plain = inspect_folder(source, "claim", tmp_path / "not-yet-there")
    assert (plain.shards, plain.quantization.format) == (2, "none")
    assert (
        plain.free_bytes
        and plain.total_bytes == json.loads((source / "model.safetensors.index.json").read_text())["metadata"]["total_size"]
    )
    convert_folder(source, tmp_path / "fp8", Fp8Block(), 1)
    convert_folder(source, tmp_path / "int4", Int4Group(group_size=32), 1)
    fp8, int4 = inspect_folder(tmp_path / "fp8", ""), inspect_folder(tmp_path / "int4", "")
    assert (fp8.quantization.format, fp8.quantization.block_size) == ("fp8-block", (128, 128))
    assert (int4.quantization.group_size, int4.quantization.scope) == (32, "routed-experts")
    assert fp8.shape == int4.shape == plain.shape
    assert all(len(inspection_message(i).encode()) <= TERMINATION_MESSAGE_BYTES for i in (plain, fp8, int4))


def flip(path: Path, position: int) -> None:
    """Change one byte and keep the times."""
    times = path.stat()
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_fingerprint_covers_all_that_design_says(make_model: Any) -> None:
    folder = make_model()
    seen = {fingerprint(folder, ""), fingerprint(folder, "default/models")}
    assert fingerprint(folder, "") in seen and len(seen) == 2
    shard = sorted(folder.glob("*.safetensors"))[0]
    flip(shard, shard.stat().st_size - 1)
    seen.add(fingerprint(folder, ""))
    os.utime(shard, ns=(0, shard.stat().st_mtime_ns + 1))
    seen.add(fingerprint(folder, ""))
    flip(folder / "tokenizer.json", 5)
    seen.add(fingerprint(folder, ""))
    set_config(folder, rms_norm_eps=1e-5)
    seen.add(fingerprint(folder, ""))
    assert len(seen) == 6


def test_fine_tune_with_equal_headers_and_times_is_another_source(make_model: Any) -> None:
    base, tuned = make_model("base", seed=0), make_model("tuned", seed=1)
    for path in base.glob("*.safetensors"):
        times = path.stat()
        os.utime(tuned / path.name, ns=(times.st_atime_ns, times.st_mtime_ns))
        assert (tuned / path.name).stat().st_size == times.st_size
    assert fingerprint(base, "") != fingerprint(tuned, "")


def test_samples_lie_in_every_tensor_of_a_usual_shard() -> None:
    sizes = [100, 8192, 1 << 20, 0, 3 << 20]
    tensors, start = [], 64
    for number, nbytes in enumerate(sizes):
        tensors.append(TensorInfo(str(number), "U8", (nbytes,), start, nbytes))
        start += nbytes
    positions = sample_positions(tensors, 64, start)
    for t in tensors:
        assert not t.nbytes or any(t.start < p + SAMPLE_BYTES and p < t.start + t.nbytes for p in positions)
    assert positions == sorted(positions) and positions[0] == 64 and positions[-1] == start - SAMPLE_BYTES
    many = [TensorInfo(str(i), "U8", (8,), 64 + 8 * i, 8) for i in range(100_000)]
    assert len(sample_positions(many, 64, 64 + 800_000)) <= 514


def test_a_folder_without_a_config_is_told_by_what_it_holds(make_model: Any, tmp_path: Path) -> None:
    folder, cache = make_model(), tmp_path / "models--Org--Model"
    shutil.copytree(folder, cache / "snapshots" / "0123abc")
    with pytest.raises(UserError, match="is a cache of Hugging Face") as refused:
        inspect_folder(cache, "")
    assert str(cache / "snapshots" / "0123abc") in refused.value.remedy
    (folder / "config.json").unlink()
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="holds an adapter") as refused:
        inspect_folder(folder, "")
    assert "merge it into its base model" in refused.value.remedy
