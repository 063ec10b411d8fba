"""Progress goes out, Control comes back: through files and through a real HTTPS server that speaks like the API server."""

import json
import ssl
import subprocess
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from lprl_api.spec.topology import Stability
from lprl_api.wire.progress import Control, Progress
from lprl_workload.metrics.configmaps import FileStore, KubernetesStore, open_store
from lprl_workload.metrics.progress import Reporter

FIRST = Progress(attempt=2, sequence=0, phase="starting", step=0, steps=10)
CONTROL = Control(suspend=True, steps=12, stability=Stability())


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def test_reports_news_at_once_and_hears_control(tmp_path: Path) -> None:
    reporter = Reporter(FileStore(tmp_path / "j-a2-progress"), FIRST, 60.0)
    path = tmp_path / "j-a2-progress" / "progress.json"
    wait_for(path.exists, "the first report")
    (path.parent / "control.json").write_text(CONTROL.model_dump_json(by_alias=True))
    reporter.phase("training", step=3, reward=0.5)
    wait_for(lambda: json.loads(path.read_text())["phase"] == "training", "the report that training began")
    wait_for(lambda: reporter.control == CONTROL, "control")
    reporter.update(step=4)
    reporter.close()
    last = Progress.model_validate_json(path.read_bytes())
    assert (last.step, last.attempt, last.reward) == (4, 2, 0.5)
    assert last.sequence >= 3


def test_sequence_grows_without_news(tmp_path: Path) -> None:
    reporter = Reporter(FileStore(tmp_path), FIRST, 0.2)
    wait_for(lambda: reporter.progress.sequence >= 3, "three reports")
    reporter.close()


def test_a_failing_store_is_logged_once_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    class Store:
        def __init__(self) -> None:
            self.answers: list[str | Exception] = [OSError("down"), OSError("down"), "{broken", CONTROL.model_dump_json(by_alias=True)]

        def exchange(self, progress: str) -> str | None:
            answer = self.answers.pop(0) if self.answers else None
            if isinstance(answer, Exception):
                raise answer
            return answer

    reporter = Reporter(Store(), FIRST, 0.2)
    wait_for(lambda: reporter.control == CONTROL, "control after three failures")
    reporter.close()
    assert sum("progress report failed" in record.getMessage() for record in caplog.records) == 1


class ApiServer(HTTPServer):
    """PATCH of one ConfigMap, with the token that is valid now."""

    def __init__(self, certificate: Path, key: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.token = "one"
        self.data: dict[str, str] = {"control.json": CONTROL.model_dump_json(by_alias=True)}
        self.seen: list[tuple[str, str]] = []


class Handler(BaseHTTPRequestHandler):
    server: ApiServer

    def do_PATCH(self) -> None:
        body: dict[str, Any] = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append((self.path, self.headers["Content-Type"]))
        allowed = self.headers["Authorization"] == f"Bearer {self.server.token}"
        if allowed:
            self.server.data |= body["data"]
        answer = json.dumps({"data": self.server.data}).encode()
        self.send_response(200 if allowed else 401)
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


def test_kubernetes_store_patches_one_object_with_a_fresh_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=api", "-addext"]
    files = ["-keyout", str(tmp_path / "key"), "-out", str(tmp_path / "ca.crt")]
    subprocess.run([*make, "subjectAltName=IP:127.0.0.1", *files], check=True, capture_output=True)
    server = ApiServer(tmp_path / "ca.crt", tmp_path / "key")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.server_port))
    (tmp_path / "token").write_text("one\n")
    store = KubernetesStore("ns", "j-a2-progress", tmp_path)
    assert store.exchange("{}") == server.data["control.json"]
    assert server.data["progress.json"] == "{}"
    assert server.seen == [("/api/v1/namespaces/ns/configmaps/j-a2-progress", "application/merge-patch+json")]
    server.token = "two"
    with pytest.raises(OSError, match="401"):
        store.exchange("{}")
    (tmp_path / "token").write_text("two\n")
    assert store.exchange("[]") is not None, "the rotated token is read"
    server.shutdown()


def test_without_either_environment_there_is_no_store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("LPRL_LOCAL_CONFIGMAPS", raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert open_store("ns", "x") is None
    monkeypatch.setenv("LPRL_LOCAL_CONFIGMAPS", str(tmp_path))
    assert isinstance(open_store("ns", "x"), FileStore)
