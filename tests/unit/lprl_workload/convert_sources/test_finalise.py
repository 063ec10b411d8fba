"""Publishing: what is written, what is refused, and that nothing half-made can be used."""

import json
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from lprl_api.errors import StorageFullError, UserError
from lprl_api.model.formats import Bf16, Fp8Block, Fp8Channel, Fp8Tensor, Int4Group, WeightFormat
from lprl_workload.convert import disk
from lprl_workload.convert.cache import check_key, check_reuse, claim, find_conversion, partial_of, share
from lprl_workload.convert.export import convert_folder
from lprl_workload.convert.finalise import finalise
from lprl_workload.convert.manifest import read_manifest
from lprl_workload.convert.verify import verify_folder
from lprl_workload.folder.model import read_contents

Converted = Callable[[Path, Path, WeightFormat], Any]
FORMATS = [Fp8Block(), Fp8Channel(), Fp8Tensor(), Int4Group(group_size=32), Bf16()]


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("fmt", FORMATS, ids=lambda f: f.kind)
def test_published_folder(make_model: Any, tmp_path: Path, converted: Converted, fmt: WeightFormat) -> None:
    source, target = make_model(), tmp_path / "target"
    config = converted(source, target, fmt)
    manifest = finalise(config, source, target)
    assert not partial_of(target).exists() and manifest == read_manifest(target)
    assert {record.name for record in manifest.files} | {"manifest.json"} == {p.name for p in target.iterdir()}
    index = json.loads((target / "model.safetensors.index.json").read_text())
    real = 0
    for shard in read_contents(target).shards:
        with safe_open(target / shard, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118
                tensor = file.get_tensor(name)
                real += tensor.numel() * tensor.element_size()
                assert index["weight_map"].pop(name) == shard
    assert index == {"metadata": {"total_size": real}, "weight_map": {}}
    document = json.loads((target / "config.json").read_text())
    assert ("quantization_config" in document) == (not isinstance(fmt, Bf16))
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja"):
        assert (target / name).read_bytes() == (source / name).read_bytes()
    report = json.loads((target / "conversion_report.json").read_text())
    assert report["totals"]["tensors"] == len(report["tensors"]) and (report["totals"]["quantized"] > 0) == (not isinstance(fmt, Bf16))
    assert report["contentKey"] in (target / "conversion_report.txt").read_text()
    assert verify_folder(target, source, None).problems == ()
    before = tree(target)
    assert finalise(config, source, target) == manifest and tree(target) == before


@pytest.mark.parametrize("fmt", [Fp8Block(), Int4Group(group_size=32)], ids=lambda f: f.kind)
def test_dequantised_folder_has_no_quantization_config(make_model: Any, tmp_path: Path, fmt: WeightFormat) -> None:
    source = make_model(dtype="float16")
    convert_folder(source, tmp_path / "low", fmt, 1)
    convert_folder(tmp_path / "low", tmp_path / "back", Bf16(), 1)
    document = json.loads((tmp_path / "back" / "config.json").read_text())
    assert "quantization_config" not in document and document["torch_dtype"] == "bfloat16"
    assert verify_folder(tmp_path / "back", tmp_path / "low", None).problems == ()


def test_missing_shards_are_named(make_model: Any, tmp_path: Path, converted: Converted) -> None:
    source, target = make_model(), tmp_path / "target"
    config = converted(source, target, Fp8Block())
    (partial_of(target) / "reports" / "model-00002-of-00002.safetensors.json").unlink()
    with pytest.raises(UserError, match=r"1 of 2 shards are not converted.*model-00002"):
        finalise(config, source, target)
    assert not target.exists()


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _touch(path: Path) -> None:
    path.write_bytes(path.read_bytes())


@pytest.mark.parametrize(
    ("harm", "match"),
    [
        pytest.param(lambda s, p: _cut(p / "model-00001-of-00002.safetensors"), "not converted, or not from this source", id="cut-output"),
        pytest.param(
            lambda s, p: _touch(s / "model-00001-of-00002.safetensors"), "not converted, or not from this source", id="source-touched"
        ),
        pytest.param(lambda s, p: (s / "tokenizer.json").write_text("{}"), "changed since it was inspected", id="tokenizer-changed"),
    ],
)
def test_changes_are_noticed(make_model: Any, tmp_path: Path, converted: Converted, harm: Any, match: str) -> None:
    source, target = make_model(), tmp_path / "target"
    config = converted(source, target, Fp8Block())
    harm(source, partial_of(target))
    with pytest.raises(UserError, match=match):
        finalise(config, source, target)
    assert not target.exists()


def test_error_above_the_limit_is_refused(make_model: Any, tmp_path: Path, converted: Converted) -> None:
    source, target = make_model(), tmp_path / "target"
    config = converted(source, target, Int4Group(group_size=32))
    with pytest.raises(UserError, match=r"relative RMS error 0\.\d+ is above the limit 0\.01"):
        finalise(config.model_copy(update={"max_relative_rms_error": 0.01}), source, target)
    assert not target.exists()
    finalise(config.model_copy(update={"max_relative_rms_error": 0.5}), source, target)
    with pytest.raises(UserError, match=r"relative RMS error 0\.\d+ is above the limit 0\.01"):
        finalise(config.model_copy(update={"max_relative_rms_error": 0.01}), source, target)  # published by one without this limit
    report = target / "conversion_report.json"
    report.write_text("{".ljust(report.stat().st_size))
    with pytest.raises(UserError, match=r"conversion_report\.json: cannot be read as a report of errors"):
        finalise(config.model_copy(update={"max_relative_rms_error": 0.5}), source, target)


def test_leftovers_do_not_reach_the_target(make_model: Any, tmp_path: Path, converted: Converted) -> None:
    source, target = make_model(), tmp_path / "target"
    config = converted(source, target, Fp8Block())
    for name in (".model-00001-of-00002.safetensors.writing", "model-00009-of-00009.safetensors", "manifest.json"):
        (partial_of(target) / name).write_bytes(b"old")
    finalise(config, source, target)
    assert verify_folder(target, source, None).problems == ()


def test_other_versions_and_other_work_are_refused(make_model: Any, tmp_path: Path, converted: Converted) -> None:
    source, target = make_model(), tmp_path / "target"
    config = converted(source, target, Fp8Block())
    with pytest.raises(UserError, match=r"contentKey: got 0+, this workload makes") as refused:
        check_key(config.model_copy(update={"content_key": "0" * 64}))
    assert refused.value.remedy == "use an operator and a workload image of the same version"
    with pytest.raises(UserError, match="unfinished work on conversion"):
        claim(partial_of(target), "1" * 64)
    finalise(config, source, target)
    with pytest.raises(UserError, match="holds conversion"):
        find_conversion(target, "1" * 64)


def test_workers_that_start_together_all_get_their_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each finds no identity and writes it: none may take the file the other is about to rename."""
    rename, both = os.rename, threading.Barrier(2, timeout=180)

    def together(src: Any, dst: Any) -> None:
        both.wait()
        rename(src, dst)

    monkeypatch.setattr(os, "rename", together)
    with ThreadPoolExecutor(2) as pool:
        for claimed in [pool.submit(claim, tmp_path / "target.partial", "1" * 64) for _ in range(2)]:
            claimed.result()


def test_a_folder_without_manifest_is_never_used(make_model: Any, tmp_path: Path) -> None:
    source, target = make_model(), tmp_path / "target"
    manifest = convert_folder(source, target, Fp8Block(), 1)
    (target / "manifest.json").write_text((target / "manifest.json").read_text()[:-20])
    with pytest.raises(UserError, match=r"without a valid manifest\.json"):
        find_conversion(target, manifest.content_key)
    assert find_conversion(tmp_path / "nothing", manifest.content_key) is None


def test_reuse_reads_the_digests(make_model: Any, tmp_path: Path) -> None:
    source, target = make_model(), tmp_path / "target"
    manifest = convert_folder(source, target, Fp8Block(), 1)
    read: list[int] = []
    for index in range(3):
        check_reuse(target, source, manifest, index, 3, read.append)
    files = [p for p in (*target.iterdir(), *source.glob("*.safetensors")) if p.name != "manifest.json"]
    assert sum(read) == sum(p.stat().st_size for p in files)
    shard = target / "model-00001-of-00002.safetensors"
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    with pytest.raises(UserError, match=r"model-00001-of-00002\.safetensors: does not match manifest\.json"):
        check_reuse(target, source, manifest, 0, 1, read.append)


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
def test_shares_tile_the_shards(workers: int) -> None:
    names = [f"model-{i:05d}" for i in range(5)]
    shares = [share(names, i, workers) for i in range(workers)]
    assert sorted(name for part in shares for name in part) == names
    assert shares[0] == names[::workers]


def test_export_replaces_an_older_one(make_model: Any, tmp_path: Path) -> None:
    first, second, target = make_model("a", seed=1), make_model("b", seed=2), tmp_path / "target"
    old = convert_folder(first, target, Fp8Block(), 1)
    with pytest.raises(UserError, match="holds conversion"):
        convert_folder(second, target, Fp8Block(), 1)
    new = convert_folder(second, target, Fp8Block(), 1, replace=True)
    assert new.content_key != old.content_key and verify_folder(target, second, None).problems == ()


def test_no_room_is_said_before_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "free_bytes", lambda _: 100_000_000)
    disk.require_free(tmp_path, 60_000_000, "converting")
    with pytest.raises(StorageFullError, match=r"volume models .*: converting needs 90\.00 MB and 33\.55 MB to spare, 100\.00 MB are free"):
        disk.require_free(tmp_path, 90_000_000, "converting", "models")
