"""The admission webhook's server, and the keeper of its certificate.

Every replica serves; the certificate lies in one Secret that all of them read. The leader makes it, renews it after two thirds of
its life, and writes its authority into the ValidatingWebhookConfiguration (with the previous one, while other replicas still serve
that). With cert-manager the files are mounted and only watched here.
"""

import base64
import json
import logging
import os
import ssl
import sys
import tempfile
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from lprl_operator import admission, certificates
from lprl_operator.bounded import BoundedServer
from lprl_operator.decide.observed import ObjectRef
from lprl_operator.kube import paths
from lprl_operator.kube.api import MERGE, ApiError, KubeApi
from lprl_operator.settings import Identity, Webhook

log = logging.getLogger(__name__)
MAX_BODY_BYTES = 4 << 20
"""An object is at most 1.5 MiB in etcd and a review holds it twice."""
LOOK_S = 30.0
END = b"-----END CERTIFICATE-----\n"
IDLE_S = 15.0


class WebhookServer:
    """HTTPS on one port; the certificate can be exchanged while it serves."""

    def __init__(self, port: int) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._server = _Server(("", port), _Handler)
        self._server.socket = self._context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self._server.serve_forever, name="webhook", daemon=True)

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._server.server_address[1])

    def load(self, certificate: bytes, key: bytes) -> None:
        """Serve with this certificate from the next connection on. Python's TLS reads keys from files only."""
        with tempfile.TemporaryDirectory() as folder:
            files = Path(folder, "tls.crt"), Path(folder, "tls.key")
            for file, text in zip(files, (certificate, key), strict=True):
                file.touch(mode=0o600)
                file.write_bytes(text)
            self._context.load_cert_chain(*map(os.fspath, files))
        if not self._thread.is_alive():
            self._thread.start()

    def stop(self) -> None:
        """Stop serving."""
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()


class _Server(BoundedServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up or trusts another certificate is no reason for a traceback."""
        log.info("webhook connection failed", extra={"client": str(client_address), "error": str(sys.exc_info()[1])[:200]})


class _Handler(BaseHTTPRequestHandler):
    timeout = IDLE_S

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if self.path.split("?")[0] != "/validate" or not length.isdigit() or int(length) > MAX_BODY_BYTES:
            self._answer(404 if self.path.split("?")[0] != "/validate" else 413, {"error": "POST an AdmissionReview to /validate"})
            return
        try:
            body = json.loads(self.rfile.read(int(length)))
            request = body["request"]
            response = admission.review(request)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            self._answer(400, {"error": f"not an AdmissionReview: {type(error).__name__}"})
            return
        if not response["allowed"]:
            fields = {"namespace": request.get("namespace"), "job": request.get("name"), "problem": response["status"]["message"][:300]}
            log.info("refused a job", extra=fields)
        self._answer(200, {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})

    def _answer(self, status: int, document: dict[str, Any]) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        return


class CertificateKeeper:
    """Looks every half minute whether the certificate is there, good and trusted."""

    def __init__(self, api: KubeApi, settings: Webhook, who: Identity, server: WebhookServer, leads: Callable[[], bool]) -> None:
        self._api, self._settings, self._who, self._server, self._leads = api, settings, who, server, leads
        service = f"{settings.service_name}.{who.namespace}.svc"
        self._names = [service, f"{service}.cluster.local"]
        self._secret = ObjectRef("v1", "Secret", who.namespace, settings.secret_name)
        self._loaded = b""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="certificate", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Stop looking."""
        self._stop.set()

    def step(self, now: datetime) -> None:
        """Look once."""
        if self._settings.certificate == "mounted":
            folder = Path(self._settings.certificate_folder)
            self._use((folder / "tls.crt").read_bytes(), (folder / "tls.key").read_bytes())
            return
        secret = self._read()
        good = secret is not None and certificates.is_good(_part(secret, "tls.crt"), self._names, now)
        if not good and self._leads():
            secret = self._write(secret, now)
        if secret is None:
            return
        self._use(_part(secret, "tls.crt"), _part(secret, "tls.key"))
        if self._leads():
            self._trust(_part(secret, "ca.crt"))

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.step(datetime.now(UTC))
            except (ApiError, OSError, ValueError) as error:
                log.warning("webhook certificate not ready", extra={"error": str(error)[:300]})
            self._stop.wait(LOOK_S if self._loaded else 1.0)

    def _use(self, certificate: bytes, key: bytes) -> None:
        if certificate and certificate != self._loaded:
            self._server.load(certificate, key)
            self._loaded = certificate
            log.info("webhook certificate loaded", extra={"names": self._names})

    def _read(self) -> dict[str, Any] | None:
        try:
            return self._api.get(paths.item(self._secret))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def _write(self, old: dict[str, Any] | None, now: datetime) -> dict[str, Any]:
        made = certificates.make(self._names, self._settings.validity_days, now)
        # The previous authority stays trusted until the next renewal: replicas change certificates one after the other.
        previous = _part(old, "ca.crt").partition(END)[0] + END if old is not None and END in _part(old, "ca.crt") else b""
        parts = {"ca.crt": made.authority + previous, "tls.crt": made.certificate, "tls.key": made.key}
        meta: dict[str, Any] = {"name": self._secret.name, "namespace": self._secret.namespace}
        document = {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": meta}
        document["data"] = {k: base64.b64encode(v).decode() for k, v in parts.items()}
        if old is None:
            return self._api.post(paths.collection("v1", "Secret", self._secret.namespace), document)
        meta["resourceVersion"] = old["metadata"]["resourceVersion"]
        return self._api.put(paths.item(self._secret), document)

    def _trust(self, authority: bytes) -> None:
        """Write the authority into every webhook of the configuration that does not have it."""
        path = f"/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/{self._settings.configuration_name}"
        found = self._api.get(path)
        text = base64.b64encode(authority).decode()
        hooks = found.get("webhooks") or []
        if all((h.get("clientConfig") or {}).get("caBundle") == text for h in hooks):
            return
        changed = [{**h, "clientConfig": {**(h.get("clientConfig") or {}), "caBundle": text}} for h in hooks]
        version = found["metadata"]["resourceVersion"]
        self._api.patch(path, {"metadata": {"resourceVersion": version}, "webhooks": changed}, MERGE)
        log.info("webhook trusted", extra={"configuration": self._settings.configuration_name})


def _part(secret: dict[str, Any] | None, key: str) -> bytes:
    return base64.b64decode(((secret or {}).get("data") or {}).get(key, ""))
