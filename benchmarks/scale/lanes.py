"""The two lanes of one run: N bare RayClusters created directly, and N jobs that share one source; the same cluster spec in both."""

import copy
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from rows import Rows
from tests.control_plane.harness.api import Document
from tests.control_plane.harness.manifests import TOY, annotations, inspection, toy
from tests.control_plane.harness.operator import Operator
from tests.control_plane.harness.plane import ControlPlane, make_namespace
from tests.control_plane.harness.world import World

from lprl_api import names

AT_ONCE = 8
"""Requests in flight while objects are created, as many as the operator has workers."""
PATIENCE_S = 1800.0
JOBS = f"/apis/{names.API_VERSION}/namespaces/{{}}/{names.PLURAL}"
CLUSTERS = "/apis/ray.io/v1/namespaces/{}/rayclusters"
REPORT_S = 15.0
DRIVER = {"step_s": REPORT_S, "wait_s": PATIENCE_S, "jitter": True, "loads_long": True}
"""Each reports when it starts and when it has its workers, which makes its job Running, and at its interval once all do: nobody reports
from bare clusters, and what reports cost is measured for itself."""
RUNS = "Running 1/1"
"""Phase and nodes of a job whose cluster is ready and whose driver reported."""


def job(name: str, world: World) -> Document:
    """A job that trains for ever, reporting at the default interval; its conversion is held until all want it."""
    sim = annotations(inspection(TOY), DRIVER, convert_hold="yes")
    return toy(name, world.namespace, sim=sim, steps=1_000_000)


def side_by_side(count: int, make: Callable[[int], Any]) -> float:
    """Call `make` for 0 .. count-1, eight at a time; returns the seconds it took."""
    begun = time.monotonic()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for result in pool.map(make, range(count)):
            del result
    return time.monotonic() - begun


def template(plane: ControlPlane, world: World) -> Document:
    """The RayCluster the operator makes of the job: one is run for it, outside the measurement."""
    operator = Operator(plane, "template-operator")
    operator.wait_healthy()
    try:
        world.apply(job("sample", world))
        world.wait_phase("sample", "Converting")
        world.wait("conversion pods", lambda: [p for p in world.pods("convert") if p["status"]["phase"] == "Running"])
        world.release("convert")
        found = world.wait("its RayCluster", lambda: world.of("RayCluster"))[0]
        world.wait_phase("sample", "Running")
        return copy.deepcopy(found)
    finally:
        world.api.delete(names.KIND, world.namespace, "sample")
        world.wait("the sample gone", lambda: not world.of("RayCluster") and not world.of("Pod"), 120)
        operator.stop()


def bare(plane: ControlPlane, sample: Document, count: int, label: str) -> dict[str, float]:
    """Create `count` RayClusters directly and wait until KubeRay calls each ready."""
    namespace = f"bare-{label}"
    make_namespace(plane.api, namespace)
    account = sample["spec"]["headGroupSpec"]["template"]["spec"]["serviceAccountName"]
    plane.api.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account}}, namespace)
    rows = Rows(plane.kubeconfig, CLUSTERS.format(namespace), ("status",))
    try:
        begun = time.monotonic()
        created = side_by_side(count, lambda i: plane.api.create(_renamed(sample, f"bare-{i:04d}", namespace)))
        rows.wait("bare clusters ready", lambda found: found["ready"] >= count, PATIENCE_S)
        return {"create_s": created, "ready_s": max(t for (_, v), t in rows.first.items() if v == "ready") - begun}
    finally:
        rows.close()


def _renamed(sample: Document, name: str, namespace: str) -> Document:
    text = copy.deepcopy({k: sample[k] for k in ("apiVersion", "kind", "spec")})
    text["metadata"] = {"name": name, "namespace": namespace, "annotations": sample["metadata"].get("annotations", {})}
    spec = text["spec"]
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        # Without our label nothing of ours, drivers included, takes part.
        labels = group["template"]["metadata"]["labels"]
        labels.pop(names.LABEL_MANAGED_BY)
        labels[names.LABEL_JOB] = name
    return text


def submit(world: World, count: int) -> float:
    """Apply all jobs; returns the seconds it took."""
    return side_by_side(count, lambda i: world.apply(job(f"job-{i:04d}", world)))


def release(world: World, rows: Rows, count: int) -> dict[str, float]:
    """Once every job waits for the shared conversion, let it end; returns the times until all run."""
    begun = time.monotonic()
    world.release("convert")
    rows.wait("all running", lambda found: found[RUNS] >= count, PATIENCE_S)
    each = rows.took("Provisioning", RUNS)
    return {
        "released_to_running_s": max(t for (_, v), t in rows.first.items() if v == RUNS) - begun,
        "provisioning_to_running_s": rows.span("Provisioning", RUNS),
        "one_job_median_s": each[len(each) // 2] if each else 0.0,
        "one_job_max_s": each[-1] if each else 0.0,
    }


def unready_nodes(plane: ControlPlane) -> list[str]:
    """Names of nodes that are not Ready."""
    ready = {"type": "Ready", "status": "True"}
    conditions = {n["metadata"]["name"]: n["status"].get("conditions", ()) for n in plane.api.list("Node")}
    return [name for name, found in conditions.items() if not any(ready.items() <= c.items() for c in found)]


def delete_jobs(plane: ControlPlane, world: World, rows: Rows) -> float:
    """Delete every job; returns the seconds until they and all their clusters and pods are gone."""
    begun = time.monotonic()
    plane.api.send("DELETE", plane.api.path(names.KIND, world.namespace), {"propagationPolicy": "Background"})
    rows.wait("no job left", lambda found: not found, PATIENCE_S)
    for kind in ("RayCluster", "Pod"):
        world.wait(f"no {kind} left", lambda kind=kind: not _some(plane, kind, world.namespace), PATIENCE_S, poll_s=1.0)  # type: ignore[misc]
    return time.monotonic() - begun


def _some(plane: ControlPlane, kind: str, namespace: str) -> bool:
    return bool(plane.api.send("GET", plane.api.path(kind, namespace) + "?limit=1")["items"])
