"""What an answer of the API server means: a server that is busy, or one that is up and passes on that a webhook is not."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import pytest
from kubernetes import client

from lprl_operator.kube.api import ApiError, KubeApi, Unavailable, is_permanent

NO_WEBHOOK = (
    'Internal error occurred: failed calling webhook "mraycluster.kb.io": failed to call webhook: Post '
    '"https://kueue-webhook-service.kueue-system.svc:443/mutate-ray-io-v1-raycluster?timeout=10s": dial tcp: connect: connection refused'
)
ETCD = "Internal error occurred: etcdserver: request timed out"


class Refusing(BaseHTTPRequestHandler):
    """Answers every POST with a 500, in the words of its body."""

    def do_POST(self) -> None:
        """Say them back."""
        said = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        body = json.dumps({"kind": "Status", "reason": "InternalError", "message": said["message"]}).encode()
        self.send_response(500)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any, **__: Any) -> None:
        """Say nothing."""


@pytest.fixture
def api() -> Iterator[KubeApi]:
    server = HTTPServer(("127.0.0.1", 0), Refusing)
    Thread(target=server.serve_forever, daemon=True).start()
    settings = client.Configuration(host=f"http://127.0.0.1:{server.server_port}")
    yield KubeApi(client.ApiClient(settings), timeout_s=10)
    server.shutdown()
    server.server_close()


def test_a_webhook_that_does_not_answer_is_a_refusal_of_this_object_for_now(api: KubeApi) -> None:
    """Not an API server that is away, which nobody could be told of: the job says why it waits."""
    with pytest.raises(ApiError) as found:
        api.post("/apis/ray.io/v1/namespaces/x/rayclusters", {"message": NO_WEBHOOK})
    assert not isinstance(found.value, Unavailable) and not is_permanent(found.value)
    assert (found.value.status, found.value.message) == (500, NO_WEBHOOK)


def test_any_other_internal_error_is_an_api_server_that_is_away(api: KubeApi) -> None:
    with pytest.raises(Unavailable):
        api.post("/api/v1/namespaces/x/configmaps", {"message": ETCD})
