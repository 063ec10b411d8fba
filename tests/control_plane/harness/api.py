"""A small client of the tests' own: what proves the operator must not share its code. Admin rights, client certificate."""

import base64
import json
import os
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import urllib3
import yaml

MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
JSON_PATCH = "application/json-patch+json"
APPLY = "application/apply-patch+yaml"
PLURALS = {
    "LowPrecisionRLJob": "/apis/lprl.dev/v1alpha1/{}lowprecisionrljobs",
    "Job": "/apis/batch/v1/{}jobs",
    "RayCluster": "/apis/ray.io/v1/{}rayclusters",
    "Pod": "/api/v1/{}pods",
    "ConfigMap": "/api/v1/{}configmaps",
    "Secret": "/api/v1/{}secrets",
    "Service": "/api/v1/{}services",
    "ServiceAccount": "/api/v1/{}serviceaccounts",
    "Event": "/api/v1/{}events",
    "PersistentVolumeClaim": "/api/v1/{}persistentvolumeclaims",
    "ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    "Role": "/apis/rbac.authorization.k8s.io/v1/{}roles",
    "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/{}rolebindings",
    "NetworkPolicy": "/apis/networking.k8s.io/v1/{}networkpolicies",
    "Lease": "/apis/coordination.k8s.io/v1/{}leases",
    "ResourceQuota": "/api/v1/{}resourcequotas",
    "ValidatingAdmissionPolicy": "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings",
    "Node": "/api/v1/nodes",
    "Namespace": "/api/v1/namespaces",
    "PersistentVolume": "/api/v1/persistentvolumes",
    "CustomResourceDefinition": "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
}
Document = dict[str, Any]


class ApiError(Exception):
    """Any answer that is not 2xx; status 0: no answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message


def credentials(kubeconfig: Path) -> tuple[str, ssl.SSLContext]:
    """Address and TLS context of a kubeconfig with embedded certificates."""
    config = yaml.safe_load(kubeconfig.read_text())
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    context = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
    with tempfile.TemporaryDirectory() as folder:
        pair = Path(folder) / "pair.pem"
        pair.touch(mode=0o600)
        pair.write_bytes(base64.b64decode(user["client-certificate-data"]) + b"\n" + base64.b64decode(user["client-key-data"]))
        context.load_cert_chain(pair)
    return cluster["server"], context


class Api:
    """Thread-safe access to the API server as its administrator."""

    def __init__(self, kubeconfig: Path, timeout_s: float = 60.0) -> None:
        self._host, context = credentials(kubeconfig)
        self._pool = urllib3.PoolManager(ssl_context=context, maxsize=32, retries=False, timeout=timeout_s)

    def get(self, kind: str, namespace: str | None, name: str) -> Document:
        return self.send("GET", self.path(kind, namespace, name))

    def find(self, kind: str, namespace: str | None, name: str) -> Document | None:
        """Return the object, None when there is none."""
        try:
            return self.get(kind, namespace, name)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def list(self, kind: str, namespace: str | None = None, selector: str = "", fields: str = "") -> list[Document]:
        """Return every object, in pages; an empty list for a kind that is not served."""
        return list(self._pages(kind, namespace, {"labelSelector": selector, "fieldSelector": fields}))

    def create(self, document: Document, namespace: str | None = None) -> Document:
        namespace = namespace or document["metadata"].get("namespace")
        return self.send("POST", self.path(document["kind"], namespace), document)

    def ensure(self, document: Document, namespace: str | None = None) -> None:
        """Create an object, or leave the one that is there."""
        try:
            self.create(document, namespace)
        except ApiError as error:
            if error.status != 409:
                raise

    def patch(self, kind: str, namespace: str | None, name: str, change: Any, how: str = MERGE, sub: str = "") -> Document:
        return self.send("PATCH", self.path(kind, namespace, name) + sub, change, how)

    def delete(self, kind: str, namespace: str | None, name: str, now: bool = False, **options: Any) -> None:
        """Delete (`now`: without waiting for a kubelet); an object that is gone is fine."""
        body: Document = {"propagationPolicy": "Background", **options}
        if now:
            body["gracePeriodSeconds"] = 0
        try:
            self.send("DELETE", self.path(kind, namespace, name), body)
        except ApiError as error:
            if error.status != 404:
                raise

    def path(self, kind: str, namespace: str | None, name: str = "") -> str:
        root = PLURALS[kind]
        found = root.format(f"namespaces/{namespace}/" if namespace else "") if "{}" in root else root
        return f"{found}/{name}" if name else found

    def send(self, method: str, path: str, body: Any = None, how: str = "application/json") -> Document:
        headers = {"Accept": "application/json", "User-Agent": "lprl-tests"}
        data = None
        if body is not None:
            headers["Content-Type"] = how
            data = json.dumps(body).encode()
        try:
            answer = self._pool.request(method, self._host + path, body=data, headers=headers)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise ApiError(0, str(error)) from error
        found: Document = json.loads(answer.data) if answer.data[:1] == b"{" else {"text": answer.data.decode()}
        if not 200 <= answer.status < 300:
            raise ApiError(answer.status, str(found.get("message", found)))
        return found

    def _pages(self, kind: str, namespace: str | None, query: dict[str, str]) -> Iterator[Document]:
        query = {k: v for k, v in query.items() if v} | {"limit": "500"}
        while True:
            try:
                page = self.send("GET", f"{self.path(kind, namespace)}?{urlencode(query)}")
            except ApiError as error:
                if error.status == 404:
                    return
                raise
            for item in page["items"]:
                yield {"kind": kind, **item}
            token = page["metadata"].get("continue")
            if not token:
                return
            query["continue"] = token


def connect(kubeconfig: str | None = None) -> Api:
    """Connect as $KUBECONFIG says."""
    return Api(Path(kubeconfig or os.environ["KUBECONFIG"]))
