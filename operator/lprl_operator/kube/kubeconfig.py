"""A person's way to a cluster: kubeconfig file, context and namespace, as kubectl chooses them. The operator itself does not use it."""

import os
from dataclasses import dataclass
from pathlib import Path

import yaml
from kubernetes import client, config

from lprl_api.errors import UserError

IN_CLUSTER_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
DEFAULT = "~/.kube/config"
REMEDY = "give --kubeconfig FILE, set KUBECONFIG, or get one from whoever runs the cluster (`kubectl get namespaces` must work)"


@dataclass(frozen=True)
class Access:
    """Where to connect, and as whom."""

    settings: client.Configuration
    context: str
    namespace: str


def access(kubeconfig: str | None = None, context: str | None = None) -> Access:
    """Return what --kubeconfig, $KUBECONFIG or ~/.kube/config says; inside a pod without any of them, its service account.

    Raises:
        UserError: there is none, it cannot be read, or it has no such context.

    """
    files = kubeconfig or os.environ.get("KUBECONFIG") or DEFAULT
    there = [name for name in files.split(os.pathsep) if name and Path(name).expanduser().exists()]
    if not there:
        if kubeconfig is None and context is None and IN_CLUSTER_NAMESPACE.exists():
            return _in_cluster()
        raise UserError(f"no kubeconfig at {files}", REMEDY)
    settings = client.Configuration()
    try:
        contexts, active = config.list_kube_config_contexts(config_file=files)
        known = {str(c["name"]): c.get("context") or {} for c in contexts}
        name = context or str((active or {}).get("name", ""))
        if name not in known:
            raise UserError(f"{files}: no context {name!r}", f"contexts: {', '.join(sorted(known)) or 'none'}")
        config.load_kube_config(config_file=files, context=name, client_configuration=settings)
    except (UserError, KeyboardInterrupt):
        raise
    except yaml.MarkedYAMLError as error:
        # Not the error's own text: it quotes the file, which may hold a token.
        raise UserError(f"{files}: no kubeconfig: line {_line(error)} is no YAML", REMEDY) from None
    except config.ConfigException as error:
        raise UserError(f"{files}: {str(error)[:300]}", REMEDY) from None
    except Exception as error:  # the loader trusts the file: a wrong one fails with whatever Python says
        raise UserError(f"{files}: cannot be read as a kubeconfig ({type(error).__name__})", REMEDY) from None
    return Access(settings, name, str(known[name].get("namespace") or "default"))


def _in_cluster() -> Access:
    settings = client.Configuration()
    config.load_incluster_config(client_configuration=settings)
    return Access(settings, "service account", IN_CLUSTER_NAMESPACE.read_text(encoding="utf-8").strip())


def _line(error: yaml.MarkedYAMLError) -> int:
    return error.problem_mark.line + 1 if error.problem_mark is not None else 1
