"""The tool of the lookup task as a process of its own: POST {"name", "arguments": {"key": ...}} -> {"result": ...}, on loopback only.

    python -m lprl_fixtures.lookup_server FOLDER PORT [HOST]

does no more than that, and starts in a tenth of a second: one for each episode (HOST 0.0.0.0 in a sandbox's pod).
"""

import json
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from lprl_fixtures.lookup import KEY_LETTERS, held, read_secret

HOST, PORT = "127.0.0.1", 8765
MAX_BYTES = 4096
_KEY = re.compile(rf"[a-z]{{{KEY_LETTERS}}}")


class LookupServer(ThreadingHTTPServer):
    """Answers what the secret of a task folder says; counts the calls."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, folder: Path, port: int = PORT, host: str = HOST) -> None:
        """Bind an address (port 0: any free one)."""
        super().__init__((host, port), _Handler)
        self.secret, self.calls, self.lock = read_secret(folder), 0, threading.Lock()

    @property
    def url(self) -> str:
        """Its address, for the manifest."""
        return f"http://{HOST}:{self.server_port}/lookup"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: LookupServer

    def do_POST(self) -> None:
        """Answer a call."""
        size = int(self.headers.get("Content-Length") or 0)
        if not 0 < size <= MAX_BYTES:
            self._say(413, {"error": f"a call has 1 to {MAX_BYTES} bytes"})
            return
        with self.server.lock:
            self.server.calls += 1
        try:
            key = json.loads(self.rfile.read(size))["arguments"]["key"]
        except (ValueError, KeyError, TypeError):
            key = None
        if isinstance(key, str) and _KEY.fullmatch(key):
            self._say(200, {"result": held(self.server.secret, key)})
        else:
            self._say(200, {"error": f"a key has {KEY_LETTERS} letters"})

    def do_GET(self) -> None:
        """Say how often it was asked."""
        self._say(200, {"calls": self.server.calls})

    def _say(self, status: int, answer: dict[str, Any]) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Be quiet: hundreds of calls a second."""


if __name__ == "__main__":
    LookupServer(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:4]).serve_forever()
