"""Downloads from an S3-compatible store on loopback, which checks every signature."""

from pathlib import Path
from typing import Any

import pytest

from lprl_api.errors import UserError
from lprl_api.model.source_folder import source_folder
from lprl_api.spec.sources import ModelSource, S3Source, VolumePath
from lprl_workload.convert.download import COMPLETE, is_complete
from lprl_workload.convert.remote import DownloadProgress
from lprl_workload.convert.source import resolve_source

CACHE = VolumePath(volume="cache", path="sources")


def source(address: str, uri: str = "s3://bucket/models/m") -> ModelSource:
    return ModelSource(s3=S3Source(uri=uri, endpoint=address, region="eu-test-1", secret="keys"), cache=CACHE)


def check_folder(folder: Path, files: dict[str, bytes]) -> None:
    names = {k for k in files if (k.endswith((".json", ".jinja")) or k.startswith("model-")) and "/" not in k}
    assert {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file() and p.name != COMPLETE} == {k: files[k] for k in names}
    assert is_complete(folder)


def test_whole_prefix(s3: Any, volumes: Path, model_files: dict[str, bytes]) -> None:
    store, address = s3
    seen: list[DownloadProgress] = []
    folder = resolve_source(source(address), seen.append)
    check_folder(folder, model_files)
    assert seen[-1].bytes_done == seen[-1].bytes_total
    assert all((auth or "").startswith("AWS4-HMAC-SHA256") for _, _, _, auth in store.requests)
    before = len(store.requests)
    assert resolve_source(source(address)) == folder
    assert len(store.requests) == before


def test_broken_connections_go_on_where_they_broke(s3: Any, volumes: Path, model_files: dict[str, bytes]) -> None:
    store, address = s3
    store.faults.cut_after, store.faults.cuts = 100_000, 5
    check_folder(resolve_source(source(address)), model_files)
    wanted = sum(len(v) for k, v in model_files.items() if "/" not in k and (k.endswith((".json", ".jinja")) or k.startswith("model-")))
    assert store.sent == wanted, "no byte was sent twice"


def test_wrong_bytes_are_refused_by_etag(s3: Any, volumes: Path) -> None:
    store, address = s3
    name = "model-00002-of-00003.safetensors"
    store.faults.corrupt, store.faults.corruptions = name, 2
    with pytest.raises(UserError, match=f"{name}: content does not match its digest"):
        resolve_source(source(address))


def test_object_replaced_while_it_was_downloaded(s3: Any, volumes: Path) -> None:
    """The listed etag is asked for: half of one object is never joined to half of another."""
    store, address = s3
    name = "model-00002-of-00003.safetensors"

    def replace(progress: DownloadProgress) -> None:
        if progress.file == "config.json":  # listed, and no weights asked for yet: shards are fetched side by side
            store.files[name] = b"\0" * len(store.files[name])

    with pytest.raises(UserError, match="changed while it was downloaded"):
        resolve_source(source(address), replace)
    folder = volumes / "cache" / source_folder(source(address)).path
    assert not is_complete(folder) and not (folder / name).exists()


@pytest.mark.parametrize(
    ("uri", "match"),
    [
        pytest.param("s3://other/models/m", r"not found \(NoSuchBucket\)", id="no-bucket"),
        pytest.param("s3://bucket/models/none", "no config.json at its top", id="empty-prefix"),
    ],
)
def test_wrong_places_are_user_errors(s3: Any, volumes: Path, uri: str, match: str) -> None:
    with pytest.raises(UserError, match=match):
        resolve_source(source(s3[1], uri))


def test_wrong_secret_is_a_user_error(s3: Any, volumes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(UserError, match="access denied"):
        resolve_source(source(s3[1]))
