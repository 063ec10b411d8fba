"""What a run writes into its log."""

import http.server
import logging
import threading

import httpx2
import pytest

from lprl_workload.launch.main import set_up_logs


class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *words: object) -> None:
        pass


def test_requests_to_servers_are_no_lines_of_it(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("httpx2", "httpcore2"):
        monkeypatch.setattr(logging.getLogger(name), "level", logging.NOTSET)
        logging.getLogger(name).setLevel(logging.NOTSET)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    caplog.set_level(logging.INFO)
    try:
        address = f"http://127.0.0.1:{server.server_address[1]}/"
        httpx2.get(address, trust_env=False)
        assert "HTTP Request" in caplog.text, "a client that says nothing needs no setting"
        caplog.clear()
        set_up_logs()
        httpx2.get(address, trust_env=False)
        logging.getLogger("lprl_workload").info("still heard")
        assert "HTTP Request" not in caplog.text and "still heard" in caplog.text
    finally:
        server.shutdown()
        server.server_close()
