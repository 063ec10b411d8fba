"""What the driver may do in the API: get and patch the one ConfigMap it reports through; make and end claims where tools have sandboxes."""

from typing import Any

from lprl_api import names
from lprl_api.spec.job import LowPrecisionRLJob
from lprl_operator.resources import metadata, naming

ROLE = "driver"
CLAIMS = {"apiGroups": [names.SANDBOX_GROUP], "resources": ["sandboxclaims"], "verbs": ["create", "list", "delete"]}
"""No name can be said before a claim is made; list: what an earlier attempt left, and which are ready."""


def driver_account(job: LowPrecisionRLJob, attempt: int, cluster: str) -> tuple[dict[str, Any], ...]:
    """ServiceAccount of a cluster's drivers, Role and RoleBinding of one attempt.

    A driver cannot write the progress of other attempts, but while it ends and the next one is bound already (under a queue); a pod
    that was given up on a dead node belongs to another cluster, so to another account.
    """
    name, account = naming.driver_role(job.metadata.name, attempt), naming.driver_account(cluster)
    rule = {
        "apiGroups": [""],
        "resources": ["configmaps"],
        "resourceNames": [naming.progress(job.metadata.name, attempt)],
        "verbs": ["get", "patch"],
    }
    rules = [rule, CLAIMS] if any(tool.sandbox is not None for tool in job.spec.episode.tools) else [rule]
    rbac = "rbac.authorization.k8s.io"
    return (
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": metadata.metadata(job, account, ROLE),
            "automountServiceAccountToken": False,
        },
        {"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": metadata.metadata(job, name, ROLE, attempt), "rules": rules},
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "RoleBinding",
            "metadata": metadata.metadata(job, name, ROLE, attempt),
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": job.metadata.namespace}],
        },
    )
