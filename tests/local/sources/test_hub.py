"""Downloads from a Hub on loopback: complete, resumed, checked, and without the token where it does not belong."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from lprl_api.errors import StorageFullError, UserError
from lprl_api.model.source_folder import source_folder
from lprl_api.spec.sources import HuggingFaceSource, ModelSource, SecretKey, VolumePath
from lprl_workload.convert.download import COMPLETE, is_complete
from lprl_workload.convert.inspect import inspect_folder
from lprl_workload.convert.remote import DownloadProgress, InterruptedDownload
from lprl_workload.convert.source import resolve_source

CACHE = VolumePath(volume="cache", path="sources")
TOKEN = "hf_secret"


def source(address: str, token: bool = False, **changes: Any) -> ModelSource:
    secret = SecretKey(name="hub", key="token") if token else None
    hub = HuggingFaceSource(repo="org/model", endpoint=address, token_secret=secret)
    return ModelSource(hugging_face=hub.model_copy(update=changes), cache=CACHE)


def wanted(files: dict[str, bytes]) -> dict[str, bytes]:
    return {k: v for k, v in files.items() if (k.endswith((".json", ".jinja")) or k.startswith("model-")) and "/" not in k}


def check_folder(folder: Path, files: dict[str, bytes]) -> None:
    found = {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file() and p.name != COMPLETE}
    assert found == wanted(files)
    assert is_complete(folder) and not list((folder / ".download").glob("*.part"))


def test_whole_model_and_nothing_else(hub: Any, volumes: Path, model_files: dict[str, bytes]) -> None:
    store, cdn, address = hub
    seen: list[DownloadProgress] = []
    folder = resolve_source(source(address), seen.append)
    check_folder(folder, model_files)
    total = sum(map(len, wanted(model_files).values()))
    assert seen[-1].bytes_done == seen[-1].bytes_total == total and seen[-1].bytes_skipped == 0
    assert [s.bytes_done for s in seen] == sorted(s.bytes_done for s in seen)
    assert inspect_folder(folder, "").shards == 3
    requests = len(store.requests) + len(cdn.requests)
    assert resolve_source(source(address)) == folder
    assert len(store.requests) + len(cdn.requests) == requests, "a complete download asks nobody"
    assert json.loads((folder / COMPLETE).read_text())["source"].startswith("org/model@0123456789abcdef")


def test_broken_connections_go_on_where_they_broke(hub: Any, volumes: Path, model_files: dict[str, bytes]) -> None:
    _, cdn, address = hub
    cdn.faults.cut_after, cdn.faults.cuts = 100_000, 7
    folder = resolve_source(source(address))
    check_folder(folder, model_files)
    shards = sum(len(v) for k, v in model_files.items() if k.startswith("model-") and k.endswith(".safetensors"))
    assert cdn.sent == shards, "no byte was sent twice"
    assert any(r[2] == "bytes=100000-" for r in cdn.requests)


def test_gives_up_and_a_later_run_goes_on(hub: Any, volumes: Path, model_files: dict[str, bytes]) -> None:
    _, cdn, address = hub
    cdn.faults.cut_after, cdn.faults.cuts = 50_000, 1
    cdn.faults.busy = 0

    def no_more(_: DownloadProgress) -> None:
        if cdn.faults.cuts == 0:
            cdn.faults.busy = 10_000

    with pytest.raises(InterruptedDownload, match="503"):
        resolve_source(source(address), no_more)
    place = volumes / "cache" / source_folder(source(address)).path
    assert not is_complete(place) and not (place / COMPLETE).exists()
    before = cdn.sent
    cdn.faults.busy = 0
    seen: list[DownloadProgress] = []
    check_folder(resolve_source(source(address), seen.append), model_files)
    assert seen[-1].bytes_skipped >= 50_000
    assert cdn.sent - before < sum(len(v) for k, v in model_files.items() if k.startswith("model-")) - 49_000


def test_a_server_without_ranges_is_read_from_the_start(hub: Any, volumes: Path, model_files: dict[str, bytes]) -> None:
    _, cdn, address = hub
    cdn.faults.cut_after, cdn.faults.cuts, cdn.faults.ignore_range = 100_000, 2, True
    check_folder(resolve_source(source(address)), model_files)


@pytest.mark.parametrize("times", [pytest.param(1, id="once-is-mended"), pytest.param(2, id="twice-is-refused")])
def test_wrong_bytes_are_never_kept(hub: Any, volumes: Path, model_files: dict[str, bytes], times: int) -> None:
    _, cdn, address = hub
    name = next(k for k in model_files if k.startswith("model-00002"))
    cdn.faults.corrupt, cdn.faults.corruptions = name, times
    if times == 1:
        check_folder(resolve_source(source(address)), model_files)
        return
    with pytest.raises(UserError, match=f"{name}: content does not match its digest"):
        resolve_source(source(address))
    place = volumes / "cache" / source_folder(source(address)).path
    assert not (place / name).exists() and not is_complete(place)


def test_small_files_are_checked_by_their_git_digest(hub: Any, volumes: Path) -> None:
    store, _, address = hub
    store.faults.corrupt, store.faults.corruptions = "tokenizer.json", 2
    with pytest.raises(UserError, match=r"tokenizer\.json: content does not match"):
        resolve_source(source(address))


def test_token_reaches_the_hub_and_no_other_host(hub: Any, volumes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, cdn, address = hub
    store.token = TOKEN
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    resolve_source(source(address, token=True))
    assert {r[3] for r in store.requests} == {f"Bearer {TOKEN}"}
    assert {r[3] for r in cdn.requests} == {None}


def test_token_is_not_sent_to_an_endpoint_the_source_names_no_secret_for(hub: Any, volumes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, _, address = hub
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    resolve_source(source(address))
    assert {r[3] for r in store.requests} == {None}


@pytest.mark.parametrize(
    ("changes", "token", "match"),
    [
        pytest.param({"repo": "org/other"}, None, "org/other not found or not accessible", id="no-repository"),
        pytest.param({"revision": "v9"}, None, r"revision: 'v9' is not in org/model", id="no-revision"),
        pytest.param({}, "other", "is gated", id="no-access"),
        pytest.param({"endpoint": "ftp://x"}, None, "needs an http or https address", id="no-http"),
    ],
)
def test_wrong_sources_are_user_errors(hub: Any, volumes: Path, changes: dict[str, Any], token: str | None, match: str) -> None:
    store, _, address = hub
    store.token = token
    with pytest.raises(UserError, match=match):
        resolve_source(source(address, **changes))


def test_missing_token_names_the_variable(hub: Any, volumes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with pytest.raises(UserError, match="HF_TOKEN is not set"):
        resolve_source(source(hub[2], token=True))


def test_a_moved_branch_changes_only_files_that_differ(hub: Any, volumes: Path, model_files: dict[str, bytes]) -> None:
    """An unfinished download goes on from a newer commit: what is equal stays, what differs is fetched anew."""
    store, _, address = hub
    folder = resolve_source(source(address))
    (folder / COMPLETE).unlink()
    inodes = {p.name: p.stat().st_ino for p in folder.iterdir() if p.is_file()}
    other = "f" * 40
    store.revisions |= {"main": other, other: other}
    store.files["tokenizer.json"] = changed = b'{"changed": true}'
    resolve_source(source(address))
    assert (folder / "tokenizer.json").read_bytes() == changed
    kept = {p.name: p.stat().st_ino for p in folder.iterdir() if p.is_file() and p.name in inodes and p.name != "tokenizer.json"}
    assert kept == {k: v for k, v in inodes.items() if k in kept}


def test_full_volume_is_said_before_the_first_shard(hub: Any, volumes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, cdn, address = hub
    monkeypatch.setattr("lprl_workload.convert.disk.free_bytes", lambda _: 40 * 1024 * 1024 - 8_000_000)
    with pytest.raises(StorageFullError, match=r"downloading org/model@\w+ needs .* are free"):
        resolve_source(source(address))
    assert cdn.sent == 0


def test_hostile_names_are_not_written(hub: Any, volumes: Path, model_files: dict[str, bytes]) -> None:
    store, _, address = hub
    for name in ("../escape.json", "/etc/evil.json", "a\\b.json", "sub/x.json", "new\nline.json"):
        store.files[name] = b"{}"
    check_folder(resolve_source(source(address)), model_files)
    assert not list(volumes.rglob("*escape*")) and not list(volumes.rglob("*evil*"))


def test_index_that_names_a_missing_shard(hub: Any, volumes: Path) -> None:
    store, _, address = hub
    index = json.loads(store.files["model.safetensors.index.json"])
    index["weight_map"]["x"] = "../../model.safetensors"
    store.files["model.safetensors.index.json"] = json.dumps(index).encode()
    with pytest.raises(UserError, match=r"shard '\.\./\.\./model\.safetensors' is no plain \.safetensors file name"):
        resolve_source(source(address))


def test_digest_of_what_was_downloaded(hub: Any, volumes: Path, model_files: dict[str, bytes]) -> None:
    folder = resolve_source(source(hub[2]))
    for name, body in wanted(model_files).items():
        assert hashlib.sha256((folder / name).read_bytes()).digest() == hashlib.sha256(body).digest()
