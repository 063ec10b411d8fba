"""PURE: REST paths of the kinds we touch."""

from lprl_api import names
from lprl_operator.decide.observed import ObjectRef

RBAC = "rbac.authorization.k8s.io/v1"
PLURALS: dict[tuple[str, str], str] = {
    (names.API_VERSION, names.KIND): names.PLURAL,
    ("batch/v1", "Job"): "jobs",
    ("ray.io/v1", "RayCluster"): "rayclusters",
    ("kueue.x-k8s.io/v1beta2", "Workload"): "workloads",
    (names.SANDBOX_API_VERSION, "SandboxWarmPool"): "sandboxwarmpools",
    ("v1", "Pod"): "pods",
    ("v1", "ConfigMap"): "configmaps",
    ("v1", "Event"): "events",
    ("v1", "ServiceAccount"): "serviceaccounts",
    ("v1", "Secret"): "secrets",
    (RBAC, "Role"): "roles",
    (RBAC, "RoleBinding"): "rolebindings",
    ("networking.k8s.io/v1", "NetworkPolicy"): "networkpolicies",
    ("policy/v1", "PodDisruptionBudget"): "poddisruptionbudgets",
    ("monitoring.coreos.com/v1", "PodMonitor"): "podmonitors",
    ("coordination.k8s.io/v1", "Lease"): "leases",
}


def collection(api_version: str, kind: str, namespace: str | None) -> str:
    """Path of a kind's objects in a namespace, or of a cluster-scoped or all-namespaces list when it is None."""
    root = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
    scope = f"/namespaces/{namespace}" if namespace is not None else ""
    return f"{root}{scope}/{PLURALS[api_version, kind]}"


def item(ref: ObjectRef) -> str:
    """Path of one object."""
    return f"{collection(ref.api_version, ref.kind, ref.namespace)}/{ref.name}"
