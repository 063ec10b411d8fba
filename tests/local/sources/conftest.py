"""Real HTTP servers on loopback: a Hub and an S3 store small enough to read, strict enough to catch wrong clients."""

import hashlib
import hmac
import json
import threading
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import pytest

from lprl_fixtures.generate import ModelOptions, generate_model

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_secret"
KEY_ID, SECRET = "test-key", "test-secret"


@dataclass
class Faults:
    """What goes wrong: answers are cut after `cut_after` bytes (0: never) until `cuts` of them were."""

    cut_after: int = 0
    cuts: int = 0
    busy: int = 0
    """Answers of 503 before the first good one."""
    ignore_range: bool = False
    corrupt: str | None = None
    """File that is served with one wrong byte..."""
    corruptions: int = 0
    """...this many times."""


@dataclass
class Store:
    """What a server serves and what it saw."""

    files: dict[str, bytes]
    faults: Faults = field(default_factory=Faults)
    requests: list[tuple[str, str, str | None, str | None]] = field(default_factory=list)
    """Method, path, Range, Authorization."""
    revisions: dict[str, str] = field(default_factory=lambda: {"main": COMMIT, COMMIT: COMMIT})
    sent: int = 0
    """Bytes of file content sent."""
    token: str | None = None
    cdn: str | None = None
    """Address large files are redirected to."""
    lock: threading.Lock = field(default_factory=threading.Lock)


class Handler(BaseHTTPRequestHandler):
    """Ranged answers with faults."""

    protocol_version = "HTTP/1.1"
    store: Store

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def note(self) -> None:
        with self.store.lock:
            self.store.requests.append((self.command, self.path, self.headers.get("Range"), self.headers.get("Authorization")))

    def answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def busy(self) -> bool:
        faults = self.store.faults
        with self.store.lock:
            if faults.busy <= 0:
                return False
            faults.busy -= 1
        self.answer(503, b"busy")
        return True

    def send_file(self, name: str, headers: dict[str, str]) -> None:
        """Answer a (ranged) GET or HEAD of a file, with the faults that are due."""
        body, faults = self.store.files[name], self.store.faults
        with self.store.lock:
            if faults.corrupt == name and faults.corruptions > 0 and self.command == "GET":
                faults.corruptions -= 1
                body = body[:-1] + bytes([body[-1] ^ 1])
        asked = self.headers.get("Range")
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and not faults.ignore_range else 0
        part = body[start:]
        ranged = asked is not None and not faults.ignore_range
        self.send_response(206 if ranged else 200)
        for key, value in headers.items():
            self.send_header(key, value)
        if ranged:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        if self.command == "HEAD":
            return
        with self.store.lock:
            cut = bool(faults.cut_after) and faults.cuts > 0 and len(part) > faults.cut_after
            faults.cuts -= cut
        sent = part[: faults.cut_after] if cut else part
        with self.store.lock:
            self.store.sent += len(sent)
        self.wfile.write(sent)
        if cut:
            self.wfile.flush()
            self.close_connection = True


class HubHandler(Handler):
    """The Hub's model API and file addresses."""

    def do_GET(self) -> None:
        self.note()
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        store = self.store
        if store.token is not None and self.headers.get("Authorization") != f"Bearer {store.token}":
            self.answer(401, b"{}", {"X-Error-Code": "GatedRepo", "X-Error-Message": "gated"})
            return
        if self.busy():
            return
        if path.startswith("/api/models/org/model/revision/"):
            self._info(path.rsplit("/", 1)[-1])
        elif path.startswith("/org/model/resolve/"):
            self._file(path.removeprefix("/org/model/resolve/"))
        else:
            self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def _info(self, revision: str) -> None:
        if revision not in self.store.revisions:
            self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            return
        siblings = []
        for name, body in self.store.files.items():
            entry: dict[str, Any] = {
                "rfilename": name,
                "size": len(body),
                "blobId": hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest(),
            }
            if name.endswith(".safetensors"):
                entry |= {"blobId": "0" * 40, "lfs": {"size": len(body), "sha256": hashlib.sha256(body).hexdigest(), "pointerSize": 130}}
            siblings.append(entry)
        document = {"id": "org/model", "modelId": "org/model", "sha": self.store.revisions[revision], "siblings": siblings}
        self.answer(200, json.dumps(document).encode(), {"Content-Type": "application/json"})

    def _file(self, rest: str) -> None:
        revision, _, name = rest.partition("/")
        if revision not in self.store.revisions or name not in self.store.files:
            self.answer(404, b"", {"X-Error-Code": "EntryNotFound"})
        elif self.store.cdn is not None and name.endswith(".safetensors"):
            self.answer(302, b"", {"Location": f"{self.store.cdn}/{name}"})
        else:
            self.send_file(name, {})


class CdnHandler(Handler):
    """Where the Hub keeps large files: another host, that must never see the token."""

    def do_GET(self) -> None:
        self.note()
        if self.busy():
            return
        self.send_file(self.path.lstrip("/"), {})


class S3Handler(Handler):
    """ListObjectsV2, HeadObject, GetObject with checked signatures (AWS Signature Version 4)."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.note()
        if not signature_fits(self):
            body = b"<Error><Code>SignatureDoesNotMatch</Code><Message>no</Message></Error>"
            self.answer(403, body if self.command == "GET" else b"", {"Content-Type": "application/xml"})
            return
        if self.busy():
            return
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
        bucket, _, key = urllib.parse.unquote(url.path).lstrip("/").partition("/")
        if bucket != "bucket":
            self.answer(404, b"<Error><Code>NoSuchBucket</Code></Error>" if self.command == "GET" else b"")
        elif not key:
            self._list(query)
        elif key.removeprefix("models/m/") not in self.store.files:
            self.answer(404, b"<Error><Code>NoSuchKey</Code></Error>" if self.command == "GET" else b"")
        else:
            self._object(key.removeprefix("models/m/"))

    def _list(self, query: dict[str, str]) -> None:
        """Two keys a page, so that clients have to follow."""
        keys = sorted(f"models/m/{name}" for name in self.store.files)
        keys = [key for key in keys if key.startswith(query.get("prefix", "")) and key > query.get("continuation-token", "")]
        page, more = keys[:2], len(keys) > 2
        entries = "".join(f"<Contents><Key>{escape(k)}</Key><Size>{len(self.store.files[k[9:]])}</Size></Contents>" for k in page)
        token = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if more else ""
        flag = str(more).lower()
        self.answer(200, f"<ListBucketResult><IsTruncated>{flag}</IsTruncated>{token}{entries}</ListBucketResult>".encode())

    def _object(self, name: str) -> None:
        etag = f'"{hashlib.md5(self.store.files[name]).hexdigest()}"'
        if self.headers.get("If-Match") not in (None, etag):
            self.answer(412, b"<Error><Code>PreconditionFailed</Code></Error>")
            return
        self.send_file(name, {"ETag": etag})


def signature_fits(request: BaseHTTPRequestHandler) -> bool:
    """Compute the request's signature again from the secret."""
    fields = request.headers.get("Authorization", "")
    if not fields.startswith("AWS4-HMAC-SHA256 "):
        return False
    parts = dict(item.strip().split("=", 1) for item in fields.removeprefix("AWS4-HMAC-SHA256 ").split(","))
    key_id, day, region, service, _ = parts["Credential"].split("/")
    url = urllib.parse.urlsplit(request.path)
    query = "&".join(sorted(item if "=" in item else f"{item}=" for item in url.query.split("&"))) if url.query else ""
    signed = parts["SignedHeaders"].split(";")
    headers = "".join(f"{name}:{' '.join((request.headers.get(name) or '').split())}\n" for name in signed)
    canonical = "\n".join([request.command, url.path, query, headers, parts["SignedHeaders"], request.headers["X-Amz-Content-SHA256"]])
    scope = f"{day}/{region}/{service}/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{request.headers['X-Amz-Date']}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = f"AWS4{SECRET}".encode()
    for item in (day, region, service, "aws4_request"):
        key = hmac.digest(key, item.encode(), "sha256")
    fresh = abs((datetime.now(UTC) - datetime.strptime(request.headers["X-Amz-Date"], "%Y%m%dT%H%M%S%z")).total_seconds()) < 900
    return key_id == KEY_ID and fresh and hmac.compare_digest(hmac.digest(key, text.encode(), "sha256").hex(), parts["Signature"])


def serve(kind: type[Handler], store: Store) -> tuple[ThreadingHTTPServer, str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (kind,), {"store": store}))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_port}"


@pytest.fixture(scope="session")
def model_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A small model, and things beside it that nobody wants."""
    folder = tmp_path_factory.mktemp("model")
    generate_model(folder, ModelOptions("qwen3-moe", "demo", shards=3))
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    unwanted = {
        "modeling_evil.py": b"import os",
        "pytorch_model.bin": b"pickle",
        ".gitattributes": b"",
        "original/consolidated.safetensors": b"x",
    }
    return files | unwanted | {"not-in-index.safetensors": b"x" * 100}


@pytest.fixture
def hub(model_files: dict[str, bytes]) -> Iterator[tuple[Store, Store, str]]:
    """Yield (the Hub's store, the CDN's store, the Hub's address)."""
    cdn_store, store = Store(dict(model_files)), Store(dict(model_files))
    cdn, cdn_address = serve(CdnHandler, cdn_store)
    # Another host name, as on the real Hub: same machine, other origin.
    store.cdn = cdn_address.replace("127.0.0.1", "localhost")
    server, address = serve(HubHandler, store)
    yield store, cdn_store, address
    for running in (server, cdn):
        running.shutdown()
        running.server_close()


@pytest.fixture
def s3(model_files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Store, str]]:
    """Yield (the store, its address); the process has its keys."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    store = Store(dict(model_files))
    server, address = serve(S3Handler, store)
    yield store, address
    server.shutdown()
    server.server_close()


@pytest.fixture
def volumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The volumes root of this process, with a volume `cache`."""
    (tmp_path / "cache").mkdir()
    monkeypatch.setenv("LPRL_VOLUMES_ROOT", str(tmp_path))
    return tmp_path


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry at once."""
    monkeypatch.setattr("lprl_workload.convert.download.FIRST_DELAY_S", 0.01)
