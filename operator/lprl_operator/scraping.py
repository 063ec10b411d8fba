"""/metrics over HTTP, for those the API server lets `get /metrics`: the way kube-rbac-proxy does it, without one more container."""

import hashlib
import logging
import threading
import time
from http.server import BaseHTTPRequestHandler
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from lprl_operator.bounded import BoundedServer
from lprl_operator.kube.api import ApiError, KubeApi

log = logging.getLogger(__name__)
REMEMBER_S = 60.0
"""Seconds an answer of the API server about one token is believed."""
MAX_REMEMBERED = 256
IDLE_S = 10.0


class Gate:
    """Asks the API server who holds a bearer token and whether it may read metrics."""

    def __init__(self, api: KubeApi) -> None:
        self._api = api
        self._known: dict[str, tuple[float, int]] = {}
        self._lock = threading.Lock()

    def check(self, authorization: str) -> int:
        """Return the HTTP status for a request with this Authorization header: 200, 401, 403, or 503 when nobody can say."""
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            return 401
        digest = hashlib.sha256(token.encode()).hexdigest()
        with self._lock:
            known = self._known.get(digest)
        if known is not None and time.monotonic() - known[0] < REMEMBER_S:
            return known[1]
        try:
            status = self._ask(token.strip())
        except ApiError as error:
            log.warning("scraper not checked", extra={"error": str(error)[:300]})
            return 503
        with self._lock:
            if len(self._known) >= MAX_REMEMBERED:
                self._known.clear()
            self._known[digest] = (time.monotonic(), status)
        return status

    def _ask(self, token: str) -> int:
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
        who = self._api.post("/apis/authentication.k8s.io/v1/tokenreviews", review).get("status") or {}
        if not who.get("authenticated"):
            return 401
        user = who.get("user") or {}
        asked: dict[str, Any] = {
            "user": user.get("username", ""),
            "groups": user.get("groups") or [],
            "nonResourceAttributes": {"path": "/metrics", "verb": "get"},
        }
        access = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": asked}
        answer = self._api.post("/apis/authorization.k8s.io/v1/subjectaccessreviews", access).get("status") or {}
        return 200 if answer.get("allowed") else 403


def serve(registry: CollectorRegistry, port: int, gate: Gate | None) -> BoundedServer:
    """Serve /metrics from a thread; without a gate to everybody (only where the network is the gate)."""

    class Handler(BaseHTTPRequestHandler):
        timeout = IDLE_S

        def do_GET(self) -> None:
            if self.path.split("?")[0] != "/metrics":
                self._answer(404, b"only /metrics is here\n", "text/plain")
                return
            status = 200 if gate is None else gate.check(self.headers.get("Authorization", ""))
            if status != 200:
                self._answer(status, b"a bearer token that may get /metrics is needed\n", "text/plain")
                return
            self._answer(200, generate_latest(registry), CONTENT_TYPE_LATEST)

        def _answer(self, status: int, body: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            return  # scrapes are not news

    server = BoundedServer(("", port), Handler)
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server
