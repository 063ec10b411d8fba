"""Requests to the API server: this file and kubeconfig.py alone import a Kubernetes client.

The official client does what is hard (kubeconfig, in-cluster tokens and their renewal, TLS, exec plugins); documents go through as
plain JSON, since its models would cost most of the operator's processor time and drop fields they do not know.
"""

import json
import os
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

import urllib3
from kubernetes import client, config

from lprl_operator.kube.clock import ServerClock

JSON = "application/json"
MERGE = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"
ANYTHING = "application/json, */*"
"""What streams accept: logs and proxied pages are text, refusals are JSON."""
ERROR_BYTES = 64 * 1024
"""Read of a refused stream."""
OPERATOR = "lprl-operator"
WEBHOOK_IS_DOWN = "failed calling webhook"
"""The API server is there and says so of this one object: it passes on that somebody's admission webhook does not answer."""

Document = dict[str, Any]
Observer = Callable[[str, str, int, float], None]
"""Called with (verb, resource, status code or 0 for no answer, seconds) after every request."""


class ApiError(Exception):
    """The API server refused a request: 4xx other than 429, or an admission webhook does not answer (500)."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        """Of the Status object: NotFound, AlreadyExists, Conflict, Forbidden, Invalid, ..."""
        self.message = message


class Unavailable(ApiError):
    """The API server is away or busy: no connection, a time-out, 429 or 5xx."""

    def __init__(self, status: int, reason: str, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(status, reason, message)
        self.retry_after_s = retry_after_s


class KubeApi:
    """Thread-safe access to one API server."""

    def __init__(self, connected: client.ApiClient, timeout_s: float, observer: Observer = lambda *_: None, agent: str = OPERATOR) -> None:
        self._client = connected
        self._agent = agent
        self._host: str = connected.configuration.host
        self._pool: urllib3.PoolManager = connected.rest_client.pool_manager
        self._timeout = urllib3.Timeout(connect=min(10.0, timeout_s), read=timeout_s)
        self._observer = observer
        self.clock = ServerClock()

    @classmethod
    def connect(cls, timeout_s: float = 30.0, connections: int = 16, observer: Observer = lambda *_: None) -> "KubeApi":
        """Connect as the pod's service account, or as $KUBECONFIG says outside a cluster."""
        settings = client.Configuration()
        try:
            config.load_incluster_config(client_configuration=settings)
        except config.ConfigException:
            # Named here, since the client looks at the variable only when it is imported.
            config.load_kube_config(config_file=os.environ.get("KUBECONFIG"), client_configuration=settings)
        settings.connection_pool_maxsize = connections
        settings.retries = False
        return cls(client.ApiClient(settings), timeout_s, observer)

    @classmethod
    def connect_as_user(cls, settings: client.Configuration, timeout_s: float, agent: str) -> "KubeApi":
        """Connect with what `kubeconfig.access` found: a person's own rights, under the program's own name."""
        settings.retries = False
        return cls(client.ApiClient(settings), timeout_s, agent=agent)

    @property
    def host(self) -> str:
        """Address of the API server."""
        return self._host

    def get(self, path: str, **query: str) -> Document:
        """GET an object or a list."""
        return self.request("GET", path, query)

    def post(self, path: str, document: Mapping[str, Any], **query: str) -> Document:
        """POST a new object."""
        return self.request("POST", path, query, document)

    def put(self, path: str, document: Mapping[str, Any], **query: str) -> Document:
        """PUT a whole object or subresource."""
        return self.request("PUT", path, query, document)

    def patch(self, path: str, document: Mapping[str, Any] | Sequence[Mapping[str, Any]], kind: str, **query: str) -> Document:
        """PATCH with one of the content types above; a JSON patch is a list."""
        return self.request("PATCH", path, query, document, kind)

    def delete(self, path: str, options: Mapping[str, Any]) -> Document:
        """DELETE with DeleteOptions."""
        return self.request("DELETE", path, {}, options)

    def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        document: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        content_type: str = JSON,
    ) -> Document:
        """Send one request.

        Raises:
            Unavailable: no answer, 429 or 5xx.
            ApiError: any other answer that is not 2xx.

        """
        headers = self._headers(method, path, JSON)
        body = None
        if document is not None:
            headers["Content-Type"] = content_type
            body = json.dumps(document, separators=(",", ":")).encode()
        url = f"{self._host}{path}" + (f"?{urlencode(query)}" if query else "")
        started, status = time.monotonic(), 0
        try:
            answer = self._pool.request(method, url, body=body, headers=headers, timeout=self._timeout, retries=False)
            status = answer.status
            self.clock.heard(answer.headers.get("Date"))
        except (urllib3.exceptions.HTTPError, ssl.SSLError, OSError) as error:
            raise Unavailable(0, type(error).__name__, str(error)) from error
        finally:
            self._observer(method, _resource(path), status, time.monotonic() - started)
        return _checked(answer, answer.data)

    def stream(self, path: str, query: Mapping[str, str], idle_s: float) -> Iterator[bytes]:
        """GET and yield the answer as it comes (a watch, a log, a proxied page); closing the generator closes the connection.

        Raises:
            Unavailable: no answer, 429 or 5xx, the connection broke, or nothing came for `idle_s` seconds.
            ApiError: any other answer that is not 2xx.

        """
        url = f"{self._host}{path}" + (f"?{urlencode(query)}" if query else "")
        timeout = urllib3.Timeout(connect=self._timeout.connect_timeout, read=idle_s)
        headers, answer = self._headers("GET", path, ANYTHING), None
        try:
            answer = self._pool.request("GET", url, headers=headers, timeout=timeout, retries=False, preload_content=False)
            if not 200 <= answer.status < 300:
                _checked(answer, answer.read(ERROR_BYTES))
            yield from answer.stream(ERROR_BYTES)
        except (urllib3.exceptions.HTTPError, ssl.SSLError, OSError) as error:
            raise Unavailable(0, type(error).__name__, str(error)) from error
        finally:
            if answer is not None:
                # Not given back to the pool: what was not read of it would be taken for the next answer.
                answer.close()

    def _headers(self, method: str, path: str, accept: str) -> dict[str, str]:
        headers = {"Accept": accept, "User-Agent": self._agent}
        self._client.update_params_for_auth(headers, [], ["BearerToken"], path, method, None)
        return headers


def _checked(answer: Any, data: bytes) -> Document:
    status = answer.status
    found = _parsed(data)
    if 200 <= status < 300:
        return found
    reason, message = str(found.get("reason", answer.reason)), str(found.get("message") or data[:500].decode(errors="replace"))
    if status == 429 or (status >= 500 and WEBHOOK_IS_DOWN not in message):
        wait = answer.headers.get("Retry-After", "")
        raise Unavailable(status, reason, message, float(wait) if wait.isdigit() else None)
    raise ApiError(status, reason, message)


def _parsed(data: bytes) -> Document:
    try:
        found = json.loads(data)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _resource(path: str) -> str:
    """`jobs` of /apis/batch/v1/namespaces/x/jobs/y; `lowprecisionrljobs/status` of its subresource."""
    parts = path.strip("/").split("/")
    rest = parts[2:] if parts[0] == "api" else parts[3:]
    if len(rest) > 2 and rest[0] == "namespaces":
        rest = rest[2:]
    return "/".join(rest[:1] + rest[2:3])


def is_permanent(error: ApiError) -> bool:
    """Whether a refused create is refused for good: the object is wrong, or a policy says no. Quotas and RBAC can change."""
    if error.status in (400, 422):
        return True
    denied = "denied the request" in error.message or "denied request" in error.message
    return error.status == 403 and denied and "exceeded quota" not in error.message
