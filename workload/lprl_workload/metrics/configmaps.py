"""One ConfigMap as a place to write progress to and to read control from: a folder locally, the Kubernetes API in a pod."""

import json
import os
import ssl
import urllib.request
from pathlib import Path
from typing import Any, Protocol

from lprl_api.names import CONTROL_KEY, ENV_LOCAL_CONFIGMAPS, PROGRESS_KEY

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
REQUEST_TIMEOUT_S = 10.0
MAX_ANSWER_BYTES = 4 * 1024 * 1024


class ConfigMapStore(Protocol):
    """Exchanges the two keys of the progress ConfigMap."""

    def exchange(self, progress: str) -> str | None:
        """Write progress.json, return control.json (None when nobody wrote it). Raises OSError; the caller tries again later."""


class FileStore:
    """FOLDER/progress.json and FOLDER/control.json, replaced atomically."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def exchange(self, progress: str) -> str | None:
        """Write aside and rename; then read control.json."""
        self._folder.mkdir(parents=True, exist_ok=True)
        aside = self._folder / f".{PROGRESS_KEY}.{os.getpid()}"
        aside.write_text(progress)
        aside.replace(self._folder / PROGRESS_KEY)
        control = self._folder / CONTROL_KEY
        return control.read_text() if control.exists() else None


class KubernetesStore:
    """The ConfigMap through the API server the pod knows, with the pod's own service account (get and patch of one object)."""

    def __init__(self, namespace: str, name: str, account: Path = SERVICE_ACCOUNT) -> None:
        host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ.get("KUBERNETES_SERVICE_PORT", "443")
        host = f"[{host}]" if ":" in host else host
        self._url = f"https://{host}:{port}/api/v1/namespaces/{namespace}/configmaps/{name}"
        self._account = account
        self._tls = ssl.create_default_context(cafile=str(account / "ca.crt"))

    def exchange(self, progress: str) -> str | None:
        """Merge-patch progress.json; control.json is in the answer. The token is read anew, since kubelet rotates it."""
        token = (self._account / "token").read_text().strip()
        body = json.dumps({"data": {PROGRESS_KEY: progress}}).encode()
        headers = {
            "Authorization": f"Bearer {token}",
            "Content-Type": "application/merge-patch+json",
            "Accept": "application/json",
        }
        request = urllib.request.Request(self._url, data=body, headers=headers, method="PATCH")
        with urllib.request.urlopen(request, timeout=REQUEST_TIMEOUT_S, context=self._tls) as answer:
            found: dict[str, Any] = json.loads(answer.read(MAX_ANSWER_BYTES))
        control = found.get("data", {}).get(CONTROL_KEY)
        return str(control) if control is not None else None


def open_store(namespace: str, name: str) -> ConfigMapStore | None:
    """Return the store of this environment: local folder, API server, or None where there is neither (a run by hand)."""
    local = os.environ.get(ENV_LOCAL_CONFIGMAPS)
    if local:
        return FileStore(Path(local) / name)
    if os.environ.get("KUBERNETES_SERVICE_HOST") and (SERVICE_ACCOUNT / "token").exists():
        return KubernetesStore(namespace, name)
    return None
