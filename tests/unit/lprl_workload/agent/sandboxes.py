"""A small API server of SandboxClaims, and the tool that answers in every sandbox: real HTTP on loopback addresses, one a sandbox."""

import itertools
import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

from lprl_api.spec import episode as spec
from lprl_workload.agent.sandbox_claims import Api, Claims, Owner
from lprl_workload.agent.sandbox_clerk import Clerk, DeskLink
from lprl_workload.agent.sandbox_desk import Desk
from lprl_workload.agent.tool_sandbox import SandboxTool
from lprl_workload.agent.toolbox import Toolbox


def talk() -> Any:
    """Return what a toolbox asks of a conversation: a place to count in."""
    return SimpleNamespace(counts={})


TOLD = {"description": "Counts.", "parameters": {"type": "object"}}
COUNTER = """
import json, os, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    calls = 0

    def do_POST(self):
        json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        Handler.calls += 1
        found = json.dumps({"result": {"pid": os.getpid(), "calls": Handler.calls, "env": sorted(os.environ)}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(found)))
        self.end_headers()
        self.wfile.write(found)

HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
"""A tool as a process: `python FILE PORT`."""


def tool(port: int, name: str = "count", **changes: Any) -> spec.Tool:
    """Return a tool in sandboxes that answer at `port`; `changes`: of the tool, or of its sandbox."""
    own = {key: changes.pop(key) for key in ("warm_pool", "path", "max_concurrent", "claim_seconds") if key in changes}
    return spec.Tool(name=name, sandbox=spec.Sandbox(**{"warm_pool": "counters", "port": port, **own}), **TOLD, **changes)


class _Quiet(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def body(self) -> Any:
        length = int(self.headers.get("Content-Length") or 0)
        return json.loads(self.rfile.read(length)) if length else None

    def answer(self, status: int, found: Any) -> None:
        body = json.dumps(found).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class FakeApi:
    """What the API server and agent-sandbox's controller do with claims."""

    def __init__(self) -> None:
        self.claims: dict[str, dict[str, Any]] = {}
        self.made: list[dict[str, Any]] = []
        self.most = 0
        self.ready = True
        self.refuse: dict[str, list[int]] = {}
        """By method: the statuses of the next requests."""
        self.asked: Counter[str] = Counter()
        self._lock, self._numbers = threading.Lock(), itertools.count(2)

    def add(self, claim: dict[str, Any]) -> None:
        """Take a claim; its sandbox is there at once, or never."""
        waits = {"type": "Ready", "status": "False", "reason": "TemplateNotFound", "message": "no template t"}
        claim["status"] = self._there() if self.ready else {"conditions": [waits]}
        with self._lock:
            self.claims[claim["metadata"]["name"]] = claim
            self.made.append(claim)
            self.most = max(self.most, len(self.claims))

    def there(self) -> None:
        """Let every claim have its sandbox, and those to come."""
        self.ready = True
        with self._lock:
            for claim in self.claims.values():
                if "sandbox" not in claim["status"]:
                    claim["status"] = self._there()

    def _there(self) -> dict[str, Any]:
        number = next(self._numbers)
        sandbox = {"name": "s", "podIPs": [f"127.0.{number // 250}.{number % 250 + 2}"]}
        return {"conditions": [{"type": "Ready", "status": "True"}], "sandbox": sandbox}

    def answered(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        """Return status and document of a request."""
        self.asked[method] += 1
        if waits := self.refuse.get(method):
            return waits.pop(0), {"message": "refused\nfor a test"}
        if method == "POST":
            self.add(body)
            return 201, body
        if method == "DELETE":
            with self._lock:
                return (200, {}) if self.claims.pop(path.rpartition("/")[2], None) else (404, {"message": "not found"})
        wanted = dict(part.split("=") for part in parse_qs(urlsplit(path).query)["labelSelector"][0].split(","))
        with self._lock:
            return 200, {"items": [c for c in self.claims.values() if wanted.items() <= c["metadata"]["labels"].items()]}


@contextmanager
def fake_api() -> Iterator[tuple[FakeApi, str]]:
    """Serve one; gives its address as well."""
    state = FakeApi()

    class Handler(_Quiet):
        def handle_it(self) -> None:
            assert self.headers["Authorization"] == "Bearer of-the-driver"
            self.answer(*state.answered(self.command, self.path, self.body()))

        do_GET = do_POST = do_DELETE = handle_it

    with _served("127.0.0.1", Handler) as port:
        yield state, f"http://127.0.0.1:{port}"


@contextmanager
def tool_server() -> Iterator[int]:
    """Serve the tool at every loopback address; each is a sandbox with calls of its own."""
    calls, one = Counter[str](), threading.Lock()

    class Handler(_Quiet):
        def do_POST(self) -> None:
            here = self.connection.getsockname()[0]
            with one:
                calls[here] += 1
                count = calls[here]
            self.body()
            self.answer(200, {"result": {"sandbox": here, "calls": count, "path": self.path}})

    with _served("0.0.0.0", Handler) as port:
        yield port


@contextmanager
def _served(host: str, handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    class Server(ThreadingHTTPServer):
        request_queue_size = 256

    with Server((host, 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def claims(url: str, folder: Path, attempt: int = 2) -> Claims:
    """Return the source of the driver of a job `sums`."""
    (folder / "token").write_text("of-the-driver\n")
    return Claims(Api(url, folder), "team", Owner("sums", attempt, "sums-head", "1-2-3"))


@contextmanager
def tools_of(source: Any, *tools: spec.Tool) -> Iterator[Toolbox]:
    """Give a toolbox whose desk a clerk with that source serves."""
    desk, clerk = Desk(), Clerk(dict(enumerate(tools)), source)
    clerk.attach(DeskLink(desk))
    try:
        yield Toolbox({one.name: SandboxTool(one, place, desk) for place, one in enumerate(tools)}, None)
    finally:
        clerk.close()
