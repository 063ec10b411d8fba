"""What the driver may do in the API: get and patch the one ConfigMap it reports through."""

from typing import Any

from lprl_api.spec.job import LowPrecisionRLJob
from lprl_operator.resources import metadata, naming

ROLE = "driver"


def driver_account(job: LowPrecisionRLJob, attempt: int) -> tuple[dict[str, Any], ...]:
    """ServiceAccount, Role and RoleBinding of one attempt: an older attempt's driver cannot write a newer one's progress."""
    name = naming.driver_account(job.metadata.name, attempt)
    rule = {
        "apiGroups": [""],
        "resources": ["configmaps"],
        "resourceNames": [naming.progress(job.metadata.name, attempt)],
        "verbs": ["get", "patch"],
    }
    rbac = "rbac.authorization.k8s.io"
    return (
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": metadata.metadata(job, name, ROLE, attempt),
            "automountServiceAccountToken": False,
        },
        {"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": metadata.metadata(job, name, ROLE, attempt), "rules": [rule]},
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "RoleBinding",
            "metadata": metadata.metadata(job, name, ROLE, attempt),
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": job.metadata.namespace}],
        },
    )
