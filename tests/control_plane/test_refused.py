"""What the cluster refuses or lacks: images, KubeRay's and the API server's own rules, quotas, policies, room on a volume."""

import time
from collections.abc import Callable

from tests.control_plane.harness.manifests import SHAPE, Manifest, annotations, inspection, merged, toy
from tests.control_plane.harness.operator import Operator
from tests.control_plane.harness.together import Scenario, apart, together
from tests.control_plane.harness.world import JOB, World

from lprl_api import names

END_S = 900.0
FULL = '{"reason":"StorageFull","message":"models: no space left on device"}'
WRONG = '{"reason":"UserError","message":"no such dtype"}'
SETTLE_S = 20.0


def sim(number: int, **conversion: str) -> Manifest:
    """A source of its own."""
    return annotations(inspection(SHAPE, f"{number:02x}" * 32), {}, **conversion)


def without_image(number: int, role: str, where: str) -> Scenario:
    """The job says so while the image is missing, and goes on by itself when it is there. `where`: condition and its reason."""

    def scenario(world: World, job: str) -> None:
        part = {"inspect": "conversion", "convert": "conversion"}.get(role, role)
        note = f"sim.lprl.dev/image-{role}"
        world.apply(toy(job, world.namespace, sim=merged(sim(number), {part: {"annotations": {note: "missing"}}})))
        world.wait(f"{job}: told", lambda: "ErrImagePull" in world.condition(job, where).get("message", ""), seconds=END_S)
        phase = {"inspect": "Inspecting", "convert": "Converting"}.get(role, "Provisioning")
        assert world.status(job)["phase"] == phase

        def mended() -> bool:
            """Retried pods come with the annotation of their template."""
            for pod in world.pods(role):
                if note in pod["metadata"].get("annotations", {}) and _job_of(world, pod) == job:
                    world.api.patch("Pod", world.namespace, pod["metadata"]["name"], {"metadata": {"annotations": {note: None}}})
            return bool(world.status(job)["phase"] == "Succeeded")

        world.wait(f"{job}: succeeds", mended, seconds=END_S, poll_s=0.5)
        status = world.status(job)
        assert (status["attempt"], status["restartsUsed"], status.get("failures", [])) == (1, 0, [])

    return scenario


def conversion_ends(number: int, code: int, message: str, reason: str, words: str) -> Scenario:
    """A conversion whose pods end with a code that is not tried again."""

    def scenario(world: World, job: str) -> None:
        world.apply(toy(job, world.namespace, sim=sim(number, convert_exit=str(code), convert_message=message)))
        status = world.wait_phase(job, "Failed", seconds=END_S)
        failed = world.condition(job, "Failed")
        assert (failed["reason"], words in failed["message"]) == (reason, True), failed
        assert status["attempt"] == 0
        world.wait(f"{job}: no pod runs", lambda: not [p for p in world.pods("convert") if _runs(p) and _job_of(world, p) == job])

    return scenario


def conversion_pod_lost(world: World, job: str) -> None:
    """The Job makes another one; what the other pods did is kept."""
    world.apply(toy(job, world.namespace, sim=sim(20, convert_hold="yes")))
    world.wait_phase(job, "Converting", seconds=END_S)
    first = world.wait("two held pods", lambda: h if len(h := _held(world)) == 2 else None, seconds=END_S) or []
    world.api.delete("Pod", world.namespace, first[0])
    world.wait("another in its place", lambda: len(h := _held(world)) == 2 and first[0] not in h, seconds=END_S)
    world.release("convert")
    assert world.wait_phase(job, "Succeeded", seconds=END_S)["attempt"] == 1


def conversion_crashes_once(world: World, job: str) -> None:
    world.apply(toy(job, world.namespace, sim=sim(21, convert_exit="1", convert_failures="1", convert_message="boom")))
    assert world.wait_phase(job, "Succeeded", seconds=END_S)["conversion"]["progress"] == "2/2"


def refused_by_kuberay(world: World, job: str) -> None:
    """KubeRay writes an event and stops there; the job ends with its words."""
    redis = {"head": {"env": [{"name": "RAY_REDIS_ADDRESS", "value": "redis:6379"}]}}
    world.apply(toy(job, world.namespace, sim=merged(sim(22), redis)))
    made = world.wait(f"{job}: its cluster", lambda: world.api.find("RayCluster", world.namespace, f"{job}-a1"), seconds=END_S)
    begun = time.monotonic()
    world.wait_phase(job, "Failed", seconds=END_S)
    print(f"KubeRay refused {(made or {})['metadata']['name']}: the job failed with its words {time.monotonic() - begun:.1f} s later")
    failed = world.condition(job, "Failed")
    assert failed["reason"] == "ClusterRefused"
    assert "GcsFaultToleranceOptions" in failed["message"], failed
    assert not world.driver_log(job)


def images_conversions_and_kuberay(world: World) -> None:
    together(
        world,
        {
            "no-inspect-image": without_image(10, "inspect", "Inspected"),
            "no-convert-image": without_image(11, "convert", "Converted"),
            "no-head-image": without_image(12, "head", "ClusterReady"),
            "no-worker-image": without_image(13, "workers", "ClusterReady"),
            "wrong-input": conversion_ends(14, 3, WRONG, "UserError", "no such dtype"),
            "volume-full": conversion_ends(15, 5, FULL, "StorageFull", "no space left"),
            "pod-lost": conversion_pod_lost,
            "crashes-once": conversion_crashes_once,
            "refused": refused_by_kuberay,
        },
    )


def a_quota_is_waited_for(world: World) -> None:
    """Every kind a job needs is refused in turn, until there is room."""
    _close(world, "jobs.batch")
    world.apply(toy("toy", world.namespace, sim=sim(30, inspect_hold="yes")))
    _stopped_by(world, "Inspected", "jobs.batch")
    _close(world, "pods")
    _open(world, "jobs.batch")
    _stopped_by(world, "Inspected", "pods")  # of which only an event of the Job tells
    _close(world, "rayclusters.ray.io")
    _open(world, "pods")
    world.wait("inspect pod", lambda: [p for p in world.pods("inspect") if p["status"]["phase"] == "Running"], seconds=END_S)
    world.release("inspect")
    _stopped_by(world, "ClusterReady", "rayclusters.ray.io")
    _close(world, "pods")
    _open(world, "rayclusters.ray.io")
    _stopped_by(world, "ClusterReady", "pods")
    _open(world, "pods")
    status = world.wait_phase("toy", "Succeeded", seconds=END_S)
    assert (status["attempt"], status["restartsUsed"]) == (1, 0)


def a_quota_on_limits_is_met_by_one_field(world: World) -> None:
    """Without limits the pod is refused, and the job says which field to set; with it every container has some."""
    meta, spec = {"name": "limits"}, {"hard": {"limits.memory": "64Gi", "limits.cpu": "64"}}
    world.api.create({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": meta, "spec": spec}, world.namespace)
    world.wait("quota counts", lambda: "used" in world.api.get("ResourceQuota", world.namespace, "limits").get("status", {}), 330.0)
    world.apply(toy("toy", world.namespace, sim=sim(32)))
    words = "set spec.conversion.resources.limits.cpu"
    world.wait(words, lambda: words in world.condition("toy", "Inspected").get("message", ""), seconds=END_S)
    limited = {"resources": {"limits": {"cpu": 1, "memory": "1Gi"}}}
    world.apply(toy("limited", world.namespace, sim=merged(sim(33), limited)))
    status = world.wait_phase("limited", "Succeeded", seconds=END_S)
    assert (status["attempt"], status["restartsUsed"]) == (1, 0)


def _close(world: World, resource: str) -> None:
    """No room for a kind."""
    meta = {"name": f"no-{resource}"}
    spec = {"hard": {f"count/{resource}": "0"}}
    world.api.create({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": meta, "spec": spec}, world.namespace)
    world.wait("quota counts", lambda: "used" in world.api.get("ResourceQuota", world.namespace, meta["name"]).get("status", {}), 330.0)


def _open(world: World, resource: str) -> None:
    world.api.delete("ResourceQuota", world.namespace, f"no-{resource}")


def _stopped_by(world: World, where: str, resource: str) -> None:
    """The job says which quota stops it, and counts no failure."""
    words = f"exceeded quota: no-{resource}"
    world.wait(f"{where}: {words}", lambda: words in world.condition("toy", where).get("message", ""), seconds=END_S)
    assert not world.status("toy").get("failures")


def a_policy_that_denies_is_the_end(world: World) -> None:
    name = f"no-rayclusters-{world.namespace}"
    rule = {"apiGroups": ["ray.io"], "apiVersions": ["*"], "operations": ["CREATE"], "resources": ["rayclusters"]}
    here = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": world.namespace}}, "resourceRules": [rule]}
    deny = {"expression": "false", "message": "clusters are not for this team"}
    api, group = world.api, "admissionregistration.k8s.io/v1"
    policy = {"failurePolicy": "Fail", "matchConstraints": here, "validations": [deny]}
    api.create({"apiVersion": group, "kind": "ValidatingAdmissionPolicy", "metadata": {"name": name}, "spec": policy})
    bind = {"policyName": name, "validationActions": ["Deny"]}
    api.create({"apiVersion": group, "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": name}, "spec": bind})
    try:
        world.apply(toy("toy", world.namespace, sim=sim(31, inspect_delay=f"{SETTLE_S:g}s")))  # a policy takes a while to be known
        status = world.wait_phase("toy", "Failed", seconds=END_S)
        failed = world.condition("toy", "Failed")
        assert (failed["reason"], "clusters are not for this team" in failed["message"]) == ("ClusterRefused", True), failed
        assert not world.of("RayCluster")
        assert status["attempt"] == 1
    finally:
        for kind in ("ValidatingAdmissionPolicyBinding", "ValidatingAdmissionPolicy"):
            api.delete(kind, None, name)


def _held(world: World) -> list[str]:
    mine = [p for p in world.pods("convert") if "sim.lprl.dev/convert-hold" in p["metadata"].get("annotations", {})]
    return [p["metadata"]["name"] for p in mine if p["status"]["phase"] == "Running" and "deletionTimestamp" not in p["metadata"]]


def _runs(pod: Manifest) -> bool:
    return pod["status"]["phase"] in ("Pending", "Running") and "deletionTimestamp" not in pod["metadata"]


def _job_of(world: World, pod: Manifest) -> str:
    """The job a pod works for; conversions have no label of one, so their Job's owner is asked."""
    labels = pod["metadata"]["labels"]
    if names.LABEL_JOB in labels:
        return str(labels[names.LABEL_JOB])
    made_by = world.api.find("Job", world.namespace, labels["batch.kubernetes.io/job-name"])
    owners = (made_by or {"metadata": {}})["metadata"].get("ownerReferences", ())
    return next((str(o["name"]) for o in owners if o["kind"] == JOB), "")


def test_refused_and_missing(operator: Operator, make_world: Callable[[], World]) -> None:
    apart(
        make_world,
        {
            "most": images_conversions_and_kuberay,
            "quota": a_quota_is_waited_for,
            "limits": a_quota_on_limits_is_met_by_one_field,
            "policy": a_policy_that_denies_is_the_end,
        },
    )
