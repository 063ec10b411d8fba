"""A person's requests to the API server; every refusal becomes one sentence and a remedy."""

import argparse
import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from lprl_api import names
from lprl_api.errors import UserError

try:
    from lprl_operator.kube import kubeconfig, paths
    from lprl_operator.kube.api import MERGE, ApiError, KubeApi, Unavailable
except ModuleNotFoundError as missing:  # an install without the extra has no Kubernetes client
    raise UserError(f"jobs in a cluster need the package {missing.name}", "pip install '.[operator]' in the checkout") from None

Document = dict[str, Any]
AGENT = "kubectl-lprl"
TIMEOUT_S = 20.0
LIST_LIMIT = 500
NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
PREFIX = f"/apis/{names.API_VERSION}"


class Connection:
    """One cluster, one namespace to look into first."""

    def __init__(self, api: KubeApi, namespace: str, context: str) -> None:
        self.api, self.namespace, self.context = api, namespace, context

    def job(self, name: str) -> Document:
        """Return a job.

        Raises:
            UserError: there is none, or it may not be read.

        """
        with self.told(f"job {name}"):
            return self.api.get(self._path(name))

    def patch_job(self, name: str, change: Mapping[str, Any]) -> Document:
        """Merge a change into a job."""
        with self.told(f"job {name}"):
            return self.api.patch(self._path(name), change, MERGE, fieldManager=AGENT)

    def list(self, api_version: str, kind: str, selector: str = "", **query: str) -> list[Document]:
        """Return at most LIST_LIMIT objects of the namespace."""
        asked = {"limit": str(LIST_LIMIT), **query, **({"labelSelector": selector} if selector else {})}
        with self.told(f"{kind}s"):
            return list(self.api.get(paths.collection(api_version, kind, self.namespace), **asked).get("items") or ())

    def _path(self, name: str) -> str:
        return f"{paths.collection(names.API_VERSION, names.KIND, self.namespace)}/{checked_name(name)}"

    @contextlib.contextmanager
    def told(self, what: str) -> Iterator[None]:
        """Turn the API server's refusals into something to act on."""
        try:
            yield
        except ApiError as error:
            raise self.explained(error, what) from None

    def explained(self, error: ApiError, what: str) -> UserError:
        """Return a refusal for people."""
        text = said(error.message)
        if isinstance(error, Unavailable):
            if error.status == 0:
                return UserError(
                    f"no answer from the API server {self.api.host} ({error.reason}: {text[:200]})",
                    f"check the network and the kubeconfig's context {self.context!r} (--context chooses another)",
                )
            return UserError(f"the API server answers {error.status} to {what}: {text}", "try again; it may be busy or starting")
        if error.status == 401:
            return UserError(
                f"the API server does not know who you are (context {self.context!r})", "log in again, or choose another --context"
            )
        if error.status == 403:
            return UserError(
                f"not permitted: {text}",
                "ask for the chart's view role (reading) or edit role (suspend, resume) here; -n chooses a namespace",
            )
        if error.status == 404 and '" not found' in text:
            return UserError(
                f"{what}: not found in namespace {self.namespace}", "`kubectl lprl status -A` lists the jobs of every namespace"
            )
        if error.status == 404:
            return UserError(
                f"the cluster does not know {names.KIND}: the CustomResourceDefinition of {names.GROUP} is not installed",
                "helm install lprl charts/lprl (or lprl crd | kubectl apply --server-side -f -), or choose another --context",
            )
        return UserError(f"the API server refuses {what}: {text}", "the message names the field or the object to change")


def connect(args: argparse.Namespace) -> Connection:
    """Return the cluster that --kubeconfig, --context and --namespace name.

    Raises:
        UserError: there is no such cluster, or the namespace is none.

    """
    found = kubeconfig.access(args.kubeconfig, args.context)
    namespace = args.namespace or found.namespace
    return Connection(KubeApi.connect_as_user(found.settings, TIMEOUT_S, AGENT), checked_name(namespace), found.context)


def checked_name(text: str) -> str:
    """Return the name of an object; anything else would make another request of a path."""
    if NAME.fullmatch(text):
        return text
    hint = "; a local run is shown by `lprl` without cluster options" if "/" in text else ""
    raise UserError(f"{text!r} is not the name of an object in a cluster", f"lower-case letters, digits and -{hint}")


def said(message: str) -> str:
    """The text of an answer on one line: of a Status document its message."""
    try:
        found = json.loads(message)
        message = str(found.get("message", message)) if isinstance(found, dict) else message
    except ValueError:
        pass
    return " ".join(message.split())[:500]
