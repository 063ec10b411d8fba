"""Edits by others while a job lives: a queue's, which are never fought, and users', which do no harm."""

import json
import time

from tests.control_plane.harness.api import STRATEGIC, ApiError, Document
from tests.control_plane.harness.manifests import SHAPE, annotations, inspection, merged, toy
from tests.control_plane.harness.operator import Operator
from tests.control_plane.harness.plane import POOL
from tests.control_plane.harness.together import together
from tests.control_plane.harness.world import JOB, World

from lprl_api import names

END_S = 900.0
ADMITTED_S = 400.0
"""KubeRay may look only after 300 s at a cluster that was held in the moment its head came up."""
TOUCH_S = 15.0
"""After which an admitted cluster without a head is touched."""
LOOKS_S = 6.0
"""Longer than a few looks of the operator at a job that waits."""
GATE = "kueue.x-k8s.io/admission"
QUEUE = "kueue.x-k8s.io/queue-name"
FLAVOUR = {"queue.example/flavour": "blue"}
TOLERATION = {"key": "queue.example/spot", "operator": "Exists", "effect": "NoSchedule"}


def template_of(cluster: Document) -> list[Document]:
    """Pod templates of a RayCluster: the head's, then the workers'."""
    spec = cluster["spec"]
    return [spec["headGroupSpec"]["template"], *(g["template"] for g in spec["workerGroupSpecs"])]


def attempts_of(world: World, name: str) -> set[str]:
    """Which attempts a RayCluster and its pod templates are labelled with."""
    cluster = world.api.get("RayCluster", world.namespace, name)
    return {d["metadata"]["labels"][names.LABEL_ATTEMPT] for d in (cluster, *template_of(cluster))}


def edit_cluster(world: World, name: str, admit: bool) -> Document:
    """What Kueue does to a RayCluster on admission (merges the flavour's settings, starts it) and on eviction (takes it all back)."""
    while True:
        cluster = edited(world.api.get("RayCluster", world.namespace, name), admit)
        try:
            return world.api.send("PUT", world.api.path("RayCluster", world.namespace, name), cluster)
        except ApiError as error:
            if error.status != 409:  # KubeRay wrote its status meanwhile
                raise


def admit(world: World, name: str) -> Document:
    """Admit a RayCluster and see to it that KubeRay looks: held in the moment its head came up, it would only after 300 s."""
    admitted = edit_cluster(world, name, admit=True)
    touched = time.monotonic()

    def started() -> bool:
        nonlocal touched
        if time.monotonic() - touched > TOUCH_S:
            touched = time.monotonic()
            world.api.patch("RayCluster", world.namespace, name, {"metadata": {"annotations": {"example.com/touched": str(touched)}}})
        return any(p["metadata"]["labels"].get("ray.io/cluster") == name for p in world.pods("head"))

    world.wait(f"{name}: its head", started, seconds=ADMITTED_S)
    return admitted


def edited(cluster: Document, admit: bool) -> Document:
    """A RayCluster as the queue wants it."""
    for template in template_of(cluster):
        spec, labels = template["spec"], template["metadata"].setdefault("labels", {})
        if admit:
            spec["nodeSelector"] = {**spec.get("nodeSelector", {}), **FLAVOUR}
            spec["tolerations"] = [*spec.get("tolerations", ()), TOLERATION]
            labels["kueue.x-k8s.io/podset"] = "main"
            spec["schedulingGates"] = [g for g in spec.get("schedulingGates", ()) if g["name"] != GATE]
        else:
            spec["nodeSelector"] = {k: v for k, v in spec.get("nodeSelector", {}).items() if k not in FLAVOUR}
            spec["tolerations"] = [t for t in spec.get("tolerations", ()) if t != TOLERATION]
            labels.pop("kueue.x-k8s.io/podset", None)
            spec["schedulingGates"] = [{"name": GATE}]
    cluster["spec"]["suspend"] = not admit
    cluster["metadata"].setdefault("labels", {})["kueue.x-k8s.io/managed"] = "true"
    return cluster


def held_by_kuberay(world: World, name: str) -> None:
    """Wait until KubeRay says that it holds a cluster: it ends a suspension before it looks at what is wished by then, after 300 s."""
    world.wait(
        f"{name}: held", lambda: world.api.get("RayCluster", world.namespace, name).get("status", {}).get("state") == "suspended", END_S
    )


def never_fought(world: World, name: str, wanted: Document) -> None:
    """For several looks nobody but the queue changes the spec and the queue's labels."""
    until = time.monotonic() + LOOKS_S
    while time.monotonic() < until:
        now = world.api.get("RayCluster", world.namespace, name)
        assert now["spec"] == wanted["spec"]
        assert now["metadata"]["labels"] == wanted["metadata"]["labels"]
        time.sleep(0.5)


def queue_of_clusters(world: World, job: str) -> None:
    """Held back, admitted, evicted while it trains, admitted again: two attempts, and no restart is charged."""
    driver = {"step_s": 0.3, "hold_at": 4}  # held: it must not end before it is evicted
    sim = merged(annotations(inspection(SHAPE, "e1" * 32), driver), {part: {"schedulingGates": [GATE]} for part in ("head", "workers")})
    manifest = toy(job, world.namespace, sim=sim, steps=24)
    manifest["metadata"]["labels"] = {QUEUE: "team"}
    world.apply(manifest)
    world.wait(f"{job}: its cluster", lambda: world.api.find("RayCluster", world.namespace, f"{job}-a1"), seconds=END_S)
    assert world.api.get("RayCluster", world.namespace, f"{job}-a1")["metadata"]["labels"][QUEUE] == "team"
    held = edit_cluster(world, f"{job}-a1", admit=False)
    world.wait_reason(job, "ClusterReady", "Queued", seconds=END_S)
    never_fought(world, f"{job}-a1", held)
    held_by_kuberay(world, f"{job}-a1")
    admitted = admit(world, f"{job}-a1")
    world.wait_phase(job, "Running", seconds=ADMITTED_S)
    never_fought(world, f"{job}-a1", admitted)
    heads = [p for p in world.pods("head") if p["metadata"]["labels"][names.LABEL_JOB] == job]
    assert [FLAVOUR.items() <= h["spec"]["nodeSelector"].items() and TOLERATION in h["spec"]["tolerations"] for h in heads] == [True]
    world.wait(f"{job}: step 3", lambda: world.status(job)["training"]["step"] >= 3, seconds=END_S)
    uid = admitted["metadata"]["uid"]
    edit_cluster(world, f"{job}-a1", admit=False)
    world.wait(f"{job}: attempt 2 in its templates", lambda: attempts_of(world, f"{job}-a1") == {"2"}, seconds=END_S)
    world.wait_reason(job, "ClusterReady", "Queued", seconds=END_S)
    held_by_kuberay(world, f"{job}-a1")
    assert admit(world, f"{job}-a1")["metadata"]["uid"] == uid, "a queue would ask for quota anew"
    world.wait_phase(job, "Running", seconds=ADMITTED_S)
    world.script(job, step_s=0.1)
    status = world.wait_phase(job, "Succeeded", seconds=ADMITTED_S)
    assert (status["attempt"], status["restartsUsed"], [f["reason"] for f in status["failures"]]) == (2, 0, ["Evicted"])


def held_pods(world: World) -> list[Document]:
    """Running pods of the one conversion that is held."""
    mine = [p for p in world.pods("convert") if "sim.lprl.dev/convert-hold" in p["metadata"].get("annotations", {})]
    return [p for p in mine if p["status"]["phase"] == "Running" and "deletionTimestamp" not in p["metadata"]]


def queue_of_jobs(world: World, job: str) -> None:
    """The conversion Job is evicted, its template edited, and admitted again: its own pods are made anew, nothing else is."""
    world.apply(toy(job, world.namespace, sim=annotations(inspection(SHAPE, "e2" * 32), {}, convert_hold="yes")))
    world.wait_phase(job, "Converting", seconds=END_S)
    world.wait(f"{job}: pods", lambda: held_pods(world), seconds=END_S)
    (made,) = [j for j in world.of("Job", f"{names.LABEL_ROLE}=convert") if job in [o["name"] for o in j["metadata"]["ownerReferences"]]]
    name = made["metadata"]["name"]
    change = {"metadata": {"labels": {"kueue.x-k8s.io/managed": "true"}}, "spec": {"suspend": True}}
    world.api.patch("Job", world.namespace, name, change)
    world.wait_reason(job, "Converted", "WaitingForConversion", seconds=END_S)
    time.sleep(LOOKS_S)
    now = world.api.get("Job", world.namespace, name)
    assert now["spec"]["suspend"] is True
    assert now["metadata"]["labels"]["kueue.x-k8s.io/managed"] == "true"
    assert not held_pods(world)
    # A template can be changed only of a Job that counts as never started, so Kueue takes its start back first.
    world.api.patch("Job", world.namespace, name, {"status": {"startTime": None}}, sub="/status")
    template = {"metadata": {"labels": {"kueue.x-k8s.io/podset": "main"}}, "spec": {"nodeSelector": FLAVOUR, "tolerations": [TOLERATION]}}
    world.api.patch("Job", world.namespace, name, {"spec": {"template": template}}, STRATEGIC)
    world.api.patch("Job", world.namespace, name, {"spec": {"suspend": False}})
    again = world.wait(f"{job}: pods again", lambda: held_pods(world), END_S)
    assert all(FLAVOUR.items() <= p["spec"]["nodeSelector"].items() for p in again)
    assert world.api.get("Job", world.namespace, name)["metadata"]["uid"] == made["metadata"]["uid"]
    world.release("convert")
    assert world.wait_phase(job, "Succeeded", seconds=END_S)["attempt"] == 1


def status_by_hand(world: World, job: str) -> None:
    """A status somebody wrote is put right at the next look; what the job is, is read off its children."""
    world.apply(toy(job, world.namespace, {"step_s": 0.3, "hold_at": 2}, steps=6))
    world.wait_phase(job, "Running", seconds=END_S)
    forged = {"status": {"phase": "Succeeded", "message": "by hand", "nodes": {"ready": 7}}}
    world.api.patch(JOB, world.namespace, job, forged, sub="/status")
    world.wait(f"{job}: put right", lambda: (s := world.status(job))["phase"] == "Running" and s["nodes"]["ready"] == 1, seconds=END_S)
    world.script(job, step_s=0.1)
    assert world.wait_phase(job, "Succeeded", seconds=END_S)["attempt"] == 1


def control_by_hand(world: World, job: str) -> None:
    """Somebody tells the driver to stop: the operator takes it back, and a driver that heard of it is followed by another."""
    world.apply(toy(job, world.namespace, {"step_s": 0.5, "hold_at": 2}, steps=10))
    world.wait_phase(job, "Running", seconds=END_S)
    path = f"{job}-a1-progress"
    data = world.api.get("ConfigMap", world.namespace, path)["data"]
    forged = json.dumps({**json.loads(data[names.CONTROL_KEY]), "suspend": True})
    world.api.patch("ConfigMap", world.namespace, path, {"data": {names.CONTROL_KEY: forged}})

    def taken_back() -> bool:
        found = world.api.find("ConfigMap", world.namespace, path)
        return found is None or not json.loads(found["data"][names.CONTROL_KEY])["suspend"]

    world.wait(f"{job}: taken back", taken_back, seconds=END_S)

    def ended() -> bool:
        """The driver of either attempt is let go."""
        world.script(job, step_s=0.1)
        return bool(world.status(job)["phase"] == "Succeeded")

    world.wait(f"{job}: succeeds", ended, seconds=END_S, poll_s=1.0)
    status = world.status(job)
    assert status["restartsUsed"] == 0
    assert status["attempt"] in (1, 2)


def progress_deleted(world: World, job: str) -> None:
    """It comes back, the driver reports on in the same attempt, and a suspension reaches it."""
    world.apply(toy(job, world.namespace, {"step_s": 0.3}, steps=2000))
    world.wait(f"{job}: step 2", lambda: world.status(job).get("training", {}).get("step", 0) >= 2, seconds=END_S)
    before = world.status(job)["training"]["step"]
    world.api.delete("ConfigMap", world.namespace, f"{job}-a1-progress")
    world.wait(f"{job}: reports on", lambda: world.status(job)["training"]["step"] > before + 2, seconds=END_S)
    world.api.delete("ConfigMap", world.namespace, f"{job}-a1-progress")
    world.patch(job, suspend=True)
    world.wait_phase(job, "Suspended", seconds=END_S)
    world.patch(job, suspend=False)
    world.wait_phase(job, "Running", seconds=END_S)
    world.script(job, step_s=0.0, report_s=0.5)  # the pods of the first attempt, and what they were told, are gone
    status = world.wait_phase(job, "Succeeded", seconds=END_S)
    assert (status["attempt"], status["restartsUsed"], status.get("failures", [])) == (2, 0, [])


def spec_of_a_running_job(world: World, job: str) -> None:
    """What cannot change while it runs is refused, by the API server or in words; the run itself goes on."""
    world.apply(toy(job, world.namespace, {"step_s": 0.3, "hold_at": 2}, steps=6))
    world.wait_phase(job, "Running", seconds=END_S)
    before = world.job(job)["spec"]
    refused = False
    try:
        world.patch(job, precision={"training": "bf16", "rollout": "bf16", "int4": None})
    except ApiError as error:
        assert error.status == 422
        refused = True
    if not refused:
        world.wait_reason(job, "Validated", "InvalidSpec", seconds=END_S)
        world.patch(job, precision=before["precision"])
        world.wait_reason(job, "Validated", "Valid", seconds=END_S)
    print(f"a change of precision while it runs was refused by {'the API server' if refused else 'the operator'}")
    world.script(job, step_s=0.1)
    assert world.wait_phase(job, "Succeeded", seconds=END_S)["attempt"] == 1


def foreign_finalizer(world: World, job: str) -> None:
    """Somebody's finalizer keeps the deleted cluster of attempt 1: the next attempt, which needs other pods, never runs beside it."""
    world.apply(toy(job, world.namespace, {"step_s": 0.3, "hold_at": 2}, steps=4))
    name = f"{job}-a1"
    world.wait_phase(job, "Running", seconds=END_S)
    world.api.patch("RayCluster", world.namespace, name, {"metadata": {"finalizers": ["example.com/keep"]}})
    world.patch(job, podTemplate={"labels": {"example.com/other": "pods"}})
    world.script(job, step_s=0.3, crash={"attempts": [1], "step": 2, "code": 1})
    world.wait_reason(job, "ClusterReady", "WaitingForPodsGone", seconds=END_S)
    time.sleep(LOOKS_S)
    assert not world.api.find("RayCluster", world.namespace, f"{job}-a2")
    world.api.patch("RayCluster", world.namespace, name, {"metadata": {"finalizers": []}})
    world.wait(f"{job}: attempt 2 begins", lambda: len(world.driver_log(job, "start")) == 2, seconds=END_S)
    world.script(job, step_s=0.1)
    assert world.wait_phase(job, "Succeeded", seconds=END_S)["attempt"] == 2


def test_edits_by_a_queue_and_by_users(operator: Operator, world: World) -> None:
    blue = world.plane.add_nodes(world.namespace, "blue", 1)[0]
    world.api.patch("Node", None, blue, {"metadata": {"labels": {**FLAVOUR, POOL: world.namespace}}})
    together(
        world,
        {
            "queued": queue_of_clusters,
            "queued-conversion": queue_of_jobs,
            "status": status_by_hand,
            "control": control_by_hand,
            "progress": progress_deleted,
            "spec": spec_of_a_running_job,
            "finalizer": foreign_finalizer,
        },
    )
