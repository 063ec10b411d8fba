"""What a platform gives (template, pool), and what a driver has: its Role as rendered, a token, and the pod that claims belong to."""

import base64
from pathlib import Path
from typing import Any

import yaml
from tests.control_plane.harness.api import PLURALS, Document
from tests.control_plane.harness.plane import POOL
from tests.control_plane.harness.world import World
from tests.sandbox.documented import documented

from lprl_api import names
from lprl_api.spec.episode import Tool
from lprl_operator.resources.rbac import CLAIMS
from lprl_workload.agent.sandbox_claims import Api, Claims, Owner

EXTENSIONS = ("SandboxClaim", "SandboxTemplate", "SandboxWarmPool")
PLURALS.update({kind: f"/apis/{names.SANDBOX_API_VERSION}/{{}}{kind.lower()}s" for kind in EXTENSIONS})
PLURALS["Sandbox"] = "/apis/agents.x-k8s.io/v1beta1/{}sandboxes"
RBAC = "rbac.authorization.k8s.io"


def template(world: World) -> None:
    """Make the documented template, for the world's own simulated nodes."""
    found = documented()[0]
    found["spec"]["podTemplate"]["spec"]["nodeSelector"] = {POOL: world.namespace}
    world.api.create(found, world.namespace)


def pool(world: World, replicas: int) -> None:
    """Make the documented pool with as many sandboxes."""
    found = documented()[1]
    found["spec"]["replicas"] = replicas
    world.api.create(found, world.namespace)


def ready(world: World) -> int:
    """Sandboxes of the pool that are ready."""
    found = world.api.get("SandboxWarmPool", world.namespace, "python")
    return int((found.get("status") or {}).get("readyReplicas") or 0)


def head(world: World, name: str = "sums-head") -> Document:
    """Make a pod that stands for the driver's."""
    container = {"name": "driver", "image": "none"}
    spec = {"nodeSelector": {POOL: world.namespace}, "containers": [container], "restartPolicy": "Never"}
    meta = {"name": name, "labels": {names.LABEL_ROLE: "head"}}
    return world.api.create({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}, world.namespace)


def driver(world: World, folder: Path, pod: Document, job: str = "sums", attempt: int = 1) -> "Answering":
    """Return the source of a driver with no rights but those its Role gives on claims."""
    at, account = world.namespace, f"{job}-{attempt}"
    meta = {"name": account, "namespace": at}
    world.api.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta}, at)
    world.api.create({"apiVersion": f"{RBAC}/v1", "kind": "Role", "metadata": meta, "rules": [CLAIMS]}, at)
    subject = {"kind": "ServiceAccount", "name": account, "namespace": at}
    role = {"apiGroup": RBAC, "kind": "Role", "name": account}
    world.api.create({"apiVersion": f"{RBAC}/v1", "kind": "RoleBinding", "metadata": meta, "roleRef": role, "subjects": [subject]}, at)
    wanted = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}}
    token = world.api.send("POST", world.api.path("ServiceAccount", at, account) + "/token", wanted)["status"]["token"]
    cluster = yaml.safe_load(world.plane.kubeconfig.read_text())["clusters"][0]["cluster"]
    (folder / "token").write_text(token)
    (folder / "ca.crt").write_bytes(base64.b64decode(cluster["certificate-authority-data"]))
    return Answering(Api(cluster["server"], folder), at, Owner(job, attempt, pod["metadata"]["name"], pod["metadata"]["uid"]))


class Answering(Claims):
    """Claims whose sandboxes, which are simulated pods, answer at a loopback address each: the simulation gives addresses out again."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.sandboxes: list[str] = []
        """Names, in the order of their coming."""

    async def open(self, name: str, tool: Tool) -> str:
        """See Source."""
        port = (await super().open(name, tool)).rpartition(":")[2]
        mine = next(item for item in await self._list() if item["metadata"]["name"] == self.claim_name(name))
        sandbox = str(mine["status"]["sandbox"]["name"])
        assert sandbox not in self.sandboxes, "a sandbox that another episode had"
        self.sandboxes.append(sandbox)
        number = len(self.sandboxes)
        return f"http://127.0.{number // 250}.{number % 250 + 2}:{port}"
