"""A tool that runs Python, as a process of its own: POST {"name", "arguments": {"code": ...}} -> {"result": what the code printed}.

    python -m lprl_fixtures.python_server PORT [HOST]

Variables stay from call to call; an exception is the answer's error. It keeps nothing from the code it runs: what does is the sandbox
that it is the only process of (HOST 0.0.0.0 there).
"""

import contextlib
import io
import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

HOST = "127.0.0.1"
LONGEST = 65536
"""Characters of an answer; what is printed beyond is cut."""


class PythonServer(HTTPServer):
    """Runs one piece of code after the other."""

    def __init__(self, port: int, host: str = HOST) -> None:
        """Bind an address (port 0: any free one)."""
        super().__init__((host, port), _Handler)
        self.variables: dict[str, Any] = {"__name__": "__tool__"}

    def run(self, code: str) -> dict[str, str]:
        """Return {"result"} with what code printed, or {"error"} with the exception that ended it."""
        printed = io.StringIO()
        try:
            with contextlib.redirect_stdout(printed):
                exec(code, self.variables)
        except BaseException as error:  # also SystemExit: the next call is answered, too
            return {"error": f"{type(error).__name__}: {error}"[:LONGEST]}
        return {"result": printed.getvalue()[:LONGEST]}


class _Handler(BaseHTTPRequestHandler):
    server: PythonServer

    def do_POST(self) -> None:
        """Answer a call."""
        try:
            code = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)))["arguments"]["code"]
        except (ValueError, KeyError, TypeError):
            code = None
        answer = self.server.run(code) if isinstance(code, str) else {"error": "code is a text"}
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Be quiet."""


if __name__ == "__main__":
    PythonServer(int(sys.argv[1]), *sys.argv[2:3]).serve_forever()
