"""What users of a real cluster met, each as they did it, ending as it should.

Scenarios of a minute or two, each with jobs of its own name: they run beside a job that trains.
"""

import json
from collections.abc import Callable
from typing import Any

from tests.cluster.jobs import START_S, Job, submitting, tiny
from tests.cluster.kube import Document, Kube, wait

Place = Callable[[str], str]
FINISH_S = 2 * START_S
SOON_S = 90
"""An inspection on a busy machine."""


def a_name_used_again(kube: Kube, namespace: str, place: Place) -> None:
    """Another spec is refused at the inspection, with what differs; an equal one goes on and says from where."""
    with submitting(kube, namespace) as submit:
        first = submit(tiny("again"))
        first.wait_phase("Succeeded", seconds=FINISH_S)
        uid = kube.get("lprl", "again", namespace)["metadata"]["uid"]  # type: ignore[index]
        first.delete()
        other = submit(tiny("again", optimizer__learningRate=2e-3, algorithm__seed=5))
        status = other.wait_phase("Failed", seconds=SOON_S)
        assert "learningRate" in other.told() and "seed" in other.told() and uid in other.told(), other.told()
        assert other.condition("Failed")["reason"] == "UserError" and not status.get("attempt"), other.told()
        other.delete()
        changed = submit(tiny("again", precision={"training": "bf16", "rollout": "bf16"}, checkpoint__exportFormats=["bf16"]))
        changed.wait_phase("Failed", seconds=SOON_S)
        assert "precision" in changed.told(), changed.told()
        changed.delete()
        equal = submit(tiny("again"))
        status = equal.wait_phase("Succeeded", seconds=FINISH_S)
        assert status["training"]["step"] == 20 and not status.get("restartsUsed")
        assert "from step 20" in equal.told() and uid in equal.told(), equal.told()


def a_correction_of_what_waits(kube: Kube, namespace: str, place: Place) -> None:
    """A claim that is not there, then a node label no node has: each corrected, the job goes on, nothing is charged."""
    with submitting(kube, namespace) as submit:
        wrong = {"models": "models", "data": "data", "checkpoints": "nope"}
        volumes = {name: {"persistentVolumeClaim": claim} for name, claim in wrong.items()}
        job = submit(tiny("stuck", volumes=volumes, podTemplate__workers__nodeSelector={"disk": "nosuch"}))
        wait(lambda: "nope" in str(job.status().get("message")), "the claim is named", SOON_S, job.story)
        job.patch({"volumes": {"checkpoints": {"persistentVolumeClaim": "checkpoints"}}})
        job.wait_phase("Provisioning", seconds=START_S)
        wait(lambda: "unschedulable" in job.told(), "the selector is told", SOON_S, job.story)
        job.patch({"podTemplate": {"workers": {"nodeSelector": {"disk": None}}}})
        status = job.wait_phase("Running", "Succeeded", seconds=START_S)
        assert not status.get("restartsUsed"), job.story()


def quotas(kube: Kube, namespace: str, place: Place) -> None:
    """No pod allowed: the condition says so at once. Limits demanded: a job that sets them everywhere runs."""
    own = place(f"{namespace}-quota")
    demanded = {"requests.cpu": "3", "requests.memory": "8Gi", "limits.memory": "16Gi"}
    memory = {"limits": {"memory": "2Gi"}, "requests": {"cpu": "100m", "memory": "1Gi"}}
    with submitting(kube, own) as submit:
        kube.apply([quota(own, {"pods": "0"})])
        job = submit(tiny("limits", conversion__resources=memory, podTemplate={"resources": memory}))
        wait(lambda: "exceeded quota" in str(job.status().get("message")), "the quota is told", SOON_S, job.story)
        assert any("exceeded quota" in c["message"] for c in job.status()["conditions"]), job.told()
        kube.apply([quota(own, demanded)])
        status = job.wait_phase("Succeeded", seconds=2 * FINISH_S)
        assert status["attempt"] == 1 and not status.get("restartsUsed")


def quota(namespace: str, hard: Document) -> Document:
    """Return the namespace's ResourceQuota; applied again it replaces the one before."""
    return {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "small", "namespace": namespace}, "spec": {"hard": hard}}


def things_of_others_with_a_childs_name(kube: Kube, namespace: str, place: Place) -> None:
    """They are neither used nor deleted, whatever the job goes through."""
    mine = [{"kind": kind, "apiVersion": "v1", "metadata": {"name": f"ci-a1-{part}", "namespace": namespace}} for kind, part in FOREIGN]
    kube.apply(mine)
    before = [owned(kube, document) for document in mine]
    with submitting(kube, namespace) as submit:
        job = submit(tiny("ci", algorithm__steps=2000))
        wait(lambda: "ci-a1-" in job.told() and "exists already" in job.told(), "it is refused", START_S, job.story)
        job.patch({"suspend": True})
        job.wait_phase("Suspended", seconds=60)
        job.patch({"suspend": False})
        wait(lambda: job.status().get("phase") != "Suspended", "it goes on", 60, job.story)
        wait(
            lambda: "exists already" in str(job.status().get("conditions")) or job.step() > 0,
            "it is refused or works round",
            START_S,
            job.story,
        )
        assert [owned(kube, document) for document in mine] == before
    assert [owned(kube, document) for document in mine] == before
    for document in mine:
        kube.run("-n", namespace, "delete", document["kind"], document["metadata"]["name"])


FOREIGN = (("ServiceAccount", "driver"), ("ConfigMap", "progress"))


def owned(kube: Kube, document: Document) -> Any:
    """Return what tells that an object is the one we made, untouched."""
    found = kube.get(f"{document['kind'].lower()}s", document["metadata"]["name"], document["metadata"]["namespace"])
    assert found is not None, f"{document['kind']} {document['metadata']['name']} is gone"
    return found["metadata"]["uid"], found.get("data"), found["metadata"].get("ownerReferences"), found["metadata"].get("labels")


def misspelt_placement(kube: Kube, namespace: str, place: Place) -> None:
    """Refused when it is applied, by the name of the field; Kubernetes' own ways to write things are taken."""
    wrong: dict[str, dict[str, Any]] = {
        "nodeAffinty": {"affinity": {"nodeAffinty": {"x": 1}}},
        "operatr": {"tolerations": [{"key": "gpu", "operatr": "Exists"}]},
        "operator": {"tolerations": [{"key": "gpu", "operator": "Exist"}]},
        "labels": {"labels": {"team": "a b"}},
    }
    for field, template in wrong.items():
        said = kube.refused("-n", namespace, "apply", "-f", "-", text=json.dumps(tiny("affbad", podTemplate=template)))
        assert field in said, said
    right = {
        "resources": {"requests": {"cpu": 2, "memory": "1Gi"}},
        "env": [{"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
        "imagePullSecrets": [{"name": "registry"}],
        "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
    }
    kube.run("-n", namespace, "apply", "--dry-run=server", "-f", "-", text=json.dumps(tiny("habits", podTemplate=right)))


def what_cannot_run_is_refused_by_the_inspection(kube: Kube, namespace: str, place: Place) -> None:
    """A backend the image does not hold, prompts that are not there, a reward nobody can import: before any conversion or cluster."""
    with submitting(kube, namespace) as submit:
        jobs: dict[str, Job] = {
            "megatron": submit(tiny("no-backend", backends={"trainer": "megatron"})),
            "find-digit/nosuch.jsonl": submit(tiny("no-prompts", data__prompts__path="find-digit/nosuch.jsonl")),
            "nosuch_rewards": submit(tiny("no-reward", data__reward={"type": "python", "function": "nosuch_rewards:score"})),
        }
        for named, job in jobs.items():
            status = job.wait_phase("Failed", seconds=len(jobs) * SOON_S)
            # The operator knows what this version's own images hold; of any other image its inspect pod tells.
            reasons = ("InvalidSpec", "UserError") if named == "megatron" else ("UserError",)
            assert job.condition("Failed")["reason"] in reasons and named in job.told(), job.told()
            assert not status.get("attempt") and job.condition("Converted").get("status") != "True", job.told()
            assert [child for child in job.children() if child.startswith("RayCluster/")] == []


SCENARIOS: dict[str, Callable[[Kube, str, Place], None]] = {
    run.__name__: run
    for run in (
        a_name_used_again,
        quotas,
        a_correction_of_what_waits,
        things_of_others_with_a_childs_name,
        what_cannot_run_is_refused_by_the_inspection,
        misspelt_placement,
    )
}
