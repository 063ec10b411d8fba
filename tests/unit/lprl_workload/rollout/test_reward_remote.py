import json
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from lprl_api.errors import UserError
from lprl_api.names import ENV_REWARD_AUTHORIZATION as AUTHORIZATION
from lprl_api.spec.algorithm import Reward
from lprl_workload.rollout.reward import RewardItem
from lprl_workload.rollout.reward_remote import CONCURRENCY, RemoteScorer, RewardServiceError

Answer = Callable[[dict[str, Any], int], tuple[int, bytes]]
ITEMS = [RewardItem("p", "r" * n, str(n), {"n": n}) for n in range(20)]


@contextmanager
def served(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Serve on loopback; gives the address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/score"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def service(answer: Answer) -> Iterator[tuple[str, list[dict[str, Any]], list[str | None]]]:
    bodies: list[dict[str, Any]] = []
    tokens: list[str | None] = []
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                bodies.append(body)
                tokens.append(self.headers["Authorization"])
                number = len(bodies)
            status, data = answer(body, number)
            self.send_response(status)
            if status in (301, 302):
                self.send_header("Location", data.decode())
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: object) -> None:
            pass

    with served(Handler) as address:
        yield address, bodies, tokens


def test_scores_concurrently_in_order_with_the_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(AUTHORIZATION, "Bearer abc")
    arrived = threading.Barrier(len(ITEMS), timeout=180)  # passes only when all calls are in flight together
    assert len(ITEMS) <= CONCURRENCY

    def answer(body: dict[str, Any], number: int) -> tuple[int, bytes]:
        arrived.wait()
        return 200, json.dumps({"reward": body["metadata"]["n"] / 10} if body["metadata"]["n"] % 2 else body["metadata"]["n"] / 10).encode()

    with service(answer) as (url, bodies, tokens):
        reward = Reward(type="remote", url=url, headers_secret={"name": "s", "key": "k"})
        assert RemoteScorer(reward).score(ITEMS) == [n / 10 for n in range(20)]
    assert set(tokens) == {"Bearer abc"}
    assert {tuple(sorted(body)) for body in bodies} == {("label", "metadata", "prompt", "response")}


def test_retries_with_growing_waits_then_gives_up() -> None:
    waits: list[float] = []
    with service(lambda body, number: (503, b"") if number <= 3 else (200, b"1.5")) as (url, bodies, _):
        assert RemoteScorer(Reward(type="remote", url=url, retries=5), waits.append).score(ITEMS[:1]) == [1.5]
        assert len(bodies) == 4 and len(waits) == 3
    assert all(0 <= wait <= 0.5 * 2 ** (n + 1) for n, wait in enumerate(waits))
    with service(lambda body, number: (429, b"")) as (url, bodies, _):
        with pytest.raises(RewardServiceError, match="3 tries failed, the last with: HTTP 429"):
            RemoteScorer(Reward(type="remote", url=url, retries=2), waits.append).score(ITEMS[:1])
        assert len(bodies) == 3


@pytest.mark.parametrize(
    ("status", "data", "words"),
    [
        (401, b"", "answered HTTP 401"),
        (200, b"no json", "answered no JSON"),
        (200, b'{"other": 1}', "answered {'other': 1}, for p.jsonl row 3, needs the key reward or score"),
        (200, b"NaN", "needs a finite number"),
        (200, b"[1]", "answered .1., for p.jsonl row 3, needs a finite number"),
        (200, b'{"reward": null}', "answered {'reward': None}, for p.jsonl row 3, needs a finite number"),
        (200, b'{"reward": "1"}', "needs a finite number"),
        (200, b"1e999", "needs a finite number"),
        (200, b"", "answered no JSON"),
        (200, b"\xff", "answered no JSON"),
        (200, b"[" * 60_000, "answered no JSON"),
        (200, b"1" * 70_000, "more than 65536 bytes"),
    ],
)
def test_what_retrying_cannot_mend_is_the_users(status: int, data: bytes, words: str) -> None:
    with service(lambda body, number: (status, data)) as (url, bodies, _):
        with pytest.raises(UserError, match=words):
            RemoteScorer(Reward(type="remote", url=url, retries=3), lambda s: None).score([replace(ITEMS[0], origin="p.jsonl row 3")])
        assert len(bodies) == 1


def test_metadata_is_sent_as_json_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(AUTHORIZATION, "Bearer abc\n")  # as a file of a Secret may end
    metadata = {"n": math.nan, "day": date(2024, 1, 2), "price": Decimal("1.5"), "deep": [{"x": math.inf}]}
    with service(lambda body, number: (200, b"1")) as (url, bodies, tokens):
        assert RemoteScorer(Reward(type="remote", url=url)).score([RewardItem("p", "r", "1", metadata)]) == [1.0]
    assert bodies[0]["metadata"] == {"n": None, "day": "2024-01-02", "price": 1.5, "deep": [{"x": None}]} and tokens == ["Bearer abc"]


def test_a_redirect_is_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(AUTHORIZATION, "secret")
    with service(lambda body, number: (200, b"1")) as (other, seen, _), service(lambda body, number: (302, other.encode())) as (url, _, _):
        with pytest.raises(UserError, match="HTTP 302"):
            RemoteScorer(Reward(type="remote", url=url)).score(ITEMS[:1])
        assert not seen


def test_nobody_listening_is_retried_and_settings_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    with service(lambda body, number: (200, b"1")) as (url, _, _):
        pass
    with pytest.raises(RewardServiceError, match="2 tries failed"):
        RemoteScorer(Reward(type="remote", url=url, retries=1), lambda s: None).score(ITEMS[:1])
    for bad in (None, "ftp://x/y", "file:///etc/passwd", "http://", "http://x:port/", "http://[x/", "http://x:99999/"):
        with pytest.raises(UserError, match=r"data\.reward\.url"):
            RemoteScorer(Reward(type="remote", url=bad))
    monkeypatch.delenv(AUTHORIZATION, raising=False)
    with pytest.raises(UserError, match="LPRL_REWARD_AUTHORIZATION is not set"):
        RemoteScorer(Reward(type="remote", url=url, headers_secret={"name": "s", "key": "k"}))
    assert RemoteScorer(Reward(type="remote", url=url)).score([]) == []
    monkeypatch.setenv(AUTHORIZATION, "Bearer a\nb")
    with pytest.raises(UserError, match="holds what no HTTP header can"):
        RemoteScorer(Reward(type="remote", url=url))


def test_an_authorization_is_not_sent_unencrypted_except_to_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(AUTHORIZATION, "Bearer abc")
    for open_to_all in ("http://rewards.team-a.svc/score", "http://10.0.0.7:8000/", "http://[2001:db8::1]/"):
        with pytest.raises(UserError, match="is not encrypted, and LPRL_REWARD_AUTHORIZATION would be sent there"):
            RemoteScorer(Reward(type="remote", url=open_to_all))
    for safe in ("https://rewards.team-a.svc/score", "http://localhost:8000/", "http://127.0.0.1:1/", "http://[::1]:8000/"):
        RemoteScorer(Reward(type="remote", url=safe))
    monkeypatch.delenv(AUTHORIZATION)
    RemoteScorer(Reward(type="remote", url="http://rewards.team-a.svc/score"))


def test_connections_are_kept_from_one_batch_to_the_next() -> None:
    """A connection, over TLS above all, is dear beside the answer of one sample."""
    made: list[object] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            made.append(self.client_address)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", "3")
            self.end_headers()
            self.wfile.write(b"1.0")

        def log_message(self, *args: object) -> None:
            pass

    with served(Handler) as address:
        scorer = RemoteScorer(Reward(type="remote", url=address))
        assert [scorer.score(ITEMS[:1]) for _ in range(5)] == [[1.0]] * 5
        scorer.close()
        assert len(made) == 1
