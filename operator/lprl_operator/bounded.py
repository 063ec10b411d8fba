"""An HTTP server that nobody can fill: so many connections at a time, and so long for each from its first byte to its last."""

import contextlib
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

CONNECTIONS = 64
"""At a time, a thread each; more are closed at once, and their clients try again."""
LIFE_S = 30.0
"""Of a connection, however slowly its bytes come: longer than the API server waits for a webhook and Prometheus for a scrape."""


class BoundedServer(ThreadingHTTPServer):
    """ThreadingHTTPServer with a bound on threads and on how long a client may hold one."""

    daemon_threads = True

    def __init__(
        self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler], connections: int = CONNECTIONS, life_s: float = LIFE_S
    ) -> None:
        super().__init__(address, handler)
        self._free, self._life_s = threading.BoundedSemaphore(connections), life_s

    def process_request(self, request: Any, client_address: Any) -> None:
        """Give the connection a thread, or close it when there is none."""
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve one connection, cut off when its time is over."""
        cut = threading.Timer(self._life_s, _cut, (request,))
        cut.daemon = True
        cut.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            cut.cancel()
            self._free.release()


def _cut(request: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it ended meanwhile
        socket.socket.shutdown(request, socket.SHUT_RDWR)
