"""JSON schemas for kubeconform, made from what a running API server says of its kinds: no download, no other version's truth."""

import json
from pathlib import Path
from typing import Any

from tests.chart import tools

GROUPS = (
    "api/v1",
    "apis/apps/v1",
    "apis/policy/v1",
    "apis/networking.k8s.io/v1",
    "apis/rbac.authorization.k8s.io/v1",
    "apis/admissionregistration.k8s.io/v1",
    "apis/apiextensions.k8s.io/v1",
)
PATTERN = "{{ .ResourceKind }}-{{ .Group }}-{{ .ResourceAPIVersion }}.json"
GVK = "x-kubernetes-group-version-kind"


def write(folder: Path) -> None:
    """Write one strict schema per kind, named by PATTERN."""
    for group in GROUPS:
        found = json.loads(tools.run("kubectl", "get", "--raw", f"/openapi/v3/{group}").stdout)
        components = {"schemas": {name: _strict(s) for name, s in found["components"]["schemas"].items()}}
        for name, schema in components["schemas"].items():
            for kind in schema.get(GVK, ()):
                # kubeconform takes the first part of the apiVersion for the group, which for the core group is the version.
                file = f"{kind['kind'].lower()}-{kind['group'] or kind['version']}-{kind['version']}.json"
                document = {"$ref": f"#/components/schemas/{name}", "components": components}
                (folder / file).write_text(json.dumps(document))


def _strict(node: Any) -> Any:
    """Refuse properties that are not named, wherever properties are named."""
    if isinstance(node, list):
        return [_strict(n) for n in node]
    if not isinstance(node, dict):
        return node
    found = {k: _strict(v) for k, v in node.items()}
    if isinstance(found.get("properties"), dict) and found.get("type") == "object":
        found.setdefault("additionalProperties", False)
    return found
