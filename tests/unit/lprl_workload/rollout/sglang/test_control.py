"""What the control plane asks of a server, and what becomes of its answers; the server here is a socket that says what it is told to."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from lprl_workload.rollout.sglang.control import Control, ControlError

Answer = tuple[int, Any]


class Server:
    """Answers every route with what `says` holds for it, and notes what was asked."""

    def __init__(self) -> None:
        self.says: dict[str, Answer] = {}
        self.asked: list[tuple[str, str, Any, str]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                told = json.loads(body) if body else None
                outer.asked.append((self.command, self.path, told, self.headers.get("Authorization", "")))
                status, answer = outer.says.get(self.path, (404, {"detail": "Not Found"}))
                raw = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            do_GET = do_POST

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.http.server_port}"


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.http.serve_forever, args=(0.05,))
    thread.start()
    yield made
    made.http.shutdown()
    thread.join()
    made.http.server_close()


@pytest.fixture
def control(server: Server) -> Iterator[Control]:
    made = Control(server.address, "admin", 30, data_key="data")
    yield made
    made.close()


def test_each_route_gets_the_key_that_guards_it(server: Server, control: Control) -> None:
    server.says |= {"/server_info": (200, {"version": "0.5.23"}), "/flush_cache": (200, "Cache flushed.")}
    assert control.server_info() == {"version": "0.5.23"}
    control.flush()
    assert [(path, key) for _, path, _, key in server.asked] == [("/server_info", "Bearer data"), ("/flush_cache", "Bearer admin")]


CALLS: dict[str, tuple[Callable[[Control], None], str]] = {
    "pause": (lambda c: c.pause("retract"), "/pause_generation"),
    "begin": (lambda c: c.begin_session(), "/begin_weight_update"),
    "end": (lambda c: c.end_session(), "/end_weight_update"),
    "tensors": (lambda c: c.update_tensors(["eA=="], "a.b"), "/update_weights_from_tensor"),
    "disk": (lambda c: c.update_disk("/models/a"), "/update_weights_from_disk"),
    "release": (lambda c: c.release(["weights"]), "/release_memory_occupation"),
}


@pytest.mark.parametrize("name", CALLS)
def test_what_the_server_refuses_is_an_error_with_what_it_said(server: Server, control: Control, name: str) -> None:
    call, route = CALLS[name]
    for status in (400, 200):
        server.says[route] = (status, {"success": False, "message": "no weight-update session\nis open"})
        with pytest.raises(ControlError, match=f"refused {route}.*no weight-update session is open"):
            call(control)
    server.says[route] = (200, None)  # how the memory routes say that all is well
    call(control)


def test_a_server_that_is_gone_and_one_that_hangs_are_told_apart_from_one_that_refuses(server: Server, control: Control) -> None:
    server.says["/flush_cache"] = (401, {"error": "Unauthorized"})
    with pytest.raises(ControlError, match="401: Unauthorized") as refused:
        control.flush()
    assert refused.value.status == 401
    gone = Control("http://127.0.0.1:9", "admin", 30)
    with pytest.raises(ControlError, match="is not there for /flush_cache") as found:
        gone.flush()
    assert found.value.status is None
    gone.close()


def test_a_route_that_is_unknown_is_told_from_one_that_refuses(server: Server, control: Control) -> None:
    server.says["/end_weight_update"] = (400, {"success": False, "message": "no weight-update session is open"})
    assert control.has("/end_weight_update")
    assert not control.has("/post_process_weights")
    assert control.api() == {}


def test_checksums_come_rank_by_rank(server: Server, control: Control) -> None:
    ranks = [{"checksums": {"a.weight": "01"}, "per_gpu_checksum": "x"}, {"checksums": {"a.weight": "02"}, "per_gpu_checksum": "y"}]
    server.says["/weights_checker"] = (200, {"success": True, "message": "Success.", "ranks": ranks})
    assert control.checksums() == ({"a.weight": "01"}, {"a.weight": "02"})
    assert server.asked[-1][2] == {"action": "checksum"}
