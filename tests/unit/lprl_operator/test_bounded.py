"""Clients that open connections and say nothing, or say it a byte at a time, cost a bounded number of threads for a bounded time."""

import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler

import pytest
from prometheus_client import CollectorRegistry

from lprl_operator import scraping
from lprl_operator.bounded import BoundedServer
from lprl_operator.webhook import WebhookServer


class Hello(BaseHTTPRequestHandler):
    timeout = 30

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"hi")

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def serve() -> Iterator[Callable[..., int]]:
    with ExitStack() as ends:

        def make(**limits: float) -> int:
            server = BoundedServer(("127.0.0.1", 0), Hello, **limits)  # type: ignore[arg-type]
            threading.Thread(target=server.serve_forever, daemon=True).start()
            ends.callback(server.server_close)
            ends.callback(server.shutdown)
            return int(server.server_address[1])

        yield make


def ask(port: int, within_s: float = 180.0) -> bytes:
    """What it answers, asked again while its threads are taken."""
    until = time.monotonic() + within_s
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=within_s) as answer:
                return bytes(answer.read())
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


def ended(connection: socket.socket) -> bool:
    """Whether the server closed it."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def test_more_connections_than_threads_are_closed_at_once_and_served_later(serve: Callable[..., int]) -> None:
    port = serve(connections=2, life_s=300)
    silent = [socket.create_connection(("127.0.0.1", port), timeout=60) for _ in range(2)]
    time.sleep(0.3)
    with socket.create_connection(("127.0.0.1", port), timeout=60) as third:
        assert ended(third)
    for connection in silent:
        connection.close()
    assert ask(port) == b"hi"


def test_a_header_that_comes_byte_by_byte_is_cut_off(serve: Callable[..., int]) -> None:
    port = serve(connections=1, life_s=1.0)
    with socket.create_connection(("127.0.0.1", port), timeout=180) as slow, pytest.raises(OSError):
        for _ in range(3600):  # a time-out of single reads never sees this
            slow.sendall(b"G")
            time.sleep(0.05)
    assert ask(port) == b"hi", "its thread is free again"


def test_webhook_and_metrics_are_bounded() -> None:
    metrics = scraping.serve(CollectorRegistry(), 0, None)
    webhook = WebhookServer(0)
    try:
        assert isinstance(metrics, BoundedServer) and isinstance(webhook._server, BoundedServer)
    finally:
        metrics.shutdown()
        metrics.server_close()
        webhook.stop()
