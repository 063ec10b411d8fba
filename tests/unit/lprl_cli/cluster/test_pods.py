"""Which container `logs` takes."""

from typing import Any

import pytest

from lprl_api.errors import UserError
from lprl_cli.cluster.logs import LIMIT_BYTES, request
from lprl_cli.cluster.metrics import metrics_port, parsed
from lprl_cli.cluster.pods import choose, sources, stage


def pod(name: str, role: str, containers: tuple[str, ...], attempt: int | None = None, at: int = 0, init: tuple[str, ...] = ()) -> Any:
    """A pod whose containers run."""
    labels = {"lprl.dev/role": role} | ({"lprl.dev/attempt": str(attempt)} if attempt else {})
    states = [{"name": c, "state": {"running": {}}, "restartCount": 0} for c in containers]
    return {
        "metadata": {"name": name, "labels": labels, "creationTimestamp": f"2026-01-01T00:00:{at:02}Z"},
        "spec": {"containers": [{"name": c} for c in containers], "initContainers": [{"name": c} for c in init], "nodeName": "n1"},
        "status": {"phase": "Running", "containerStatuses": states},
    }


def ended(found: Any, code: int) -> Any:
    for status in found["status"]["containerStatuses"]:
        status["state"] = {"terminated": {"exitCode": code, "reason": "Error" if code else "Completed"}}
    return found


def job(phase: str, attempt: int = 0, *true: str, message: str = "") -> dict[str, Any]:
    conditions = [{"type": t, "status": "True", "reason": "x"} for t in true]
    return {"metadata": {"name": "toy"}, "status": {"phase": phase, "attempt": attempt, "conditions": conditions, "message": message}}


HEADS = ("ray-head", "driver")
EARLY = [
    ended(pod("toy-inspect-x", "inspect", ("inspect",), at=1, init=("reference",)), 0),
    pod("conv-0", "convert", ("convert",), at=2),
    ended(pod("conv-1", "convert", ("convert",), at=3), 3),
]
LATE = [
    *EARLY,
    pod("toy-a1-head", "head", HEADS, 1, at=10),
    pod("toy-a2-head", "head", HEADS, 2, at=20),
    pod("toy-a2-w-b", "workers", ("ray-worker",), 2, at=21),
    pod("toy-a2-w-a", "workers", ("ray-worker",), 2, at=22),
    pod("toy-a1-w-a", "trainer", ("ray-worker", "extra"), 1, at=11),
]
INSPECTED = ("Validated", "Inspected")
CHOICES = [
    pytest.param(EARLY, job("Inspecting"), {}, "toy-inspect-x/inspect", id="inspecting"),
    pytest.param(EARLY, job("Failed"), {}, "toy-inspect-x/inspect", id="failed-before-it-was-inspected"),
    pytest.param(EARLY, job("Converting", 0, *INSPECTED), {}, "conv-0/convert", id="converting-takes-the-pod-that-runs"),
    pytest.param(EARLY, job("Failed", 0, *INSPECTED), {}, "conv-0/convert", id="failed-in-conversion"),
    pytest.param(
        [*EARLY, pod("fin-0", "finalise", ("finalise",), at=9)], job("Converting", 0, *INSPECTED), {}, "fin-0/finalise", id="finalising"
    ),
    pytest.param(LATE, job("Running", 2, *INSPECTED), {}, "toy-a2-head/driver", id="running"),
    pytest.param(LATE, job("Restarting", 2), {}, "toy-a2-head/driver", id="restarting"),
    pytest.param(LATE, job("Converting", 2), {}, "conv-0/convert", id="converting-again-after-attempts"),
    pytest.param(LATE, job("Running", 2), {"attempt": 1}, "toy-a1-head/driver", id="an-older-attempt"),
    pytest.param(LATE, job("Running", 2), {"role": "head"}, "toy-a2-head/ray-head", id="ray-of-the-head"),
    pytest.param(LATE, job("Running", 2), {"role": "worker"}, "toy-a2-w-a/ray-worker", id="first-worker"),
    pytest.param(LATE, job("Running", 2), {"role": "worker", "match": "w-b"}, "toy-a2-w-b/ray-worker", id="a-worker-by-its-name"),
    pytest.param(LATE, job("Running", 2), {"role": "worker", "attempt": 1}, "toy-a1-w-a/ray-worker", id="a-trainer-is-a-worker"),
    pytest.param(LATE, job("Running", 2), {"role": "inspect"}, "toy-inspect-x/inspect", id="inspection-later-on"),
    pytest.param(LATE, job("Running", 2), {"match": "reference"}, "toy-inspect-x/reference", id="an-init-container-by-text"),
    pytest.param(LATE, job("Running", 2), {"match": "w-a"}, "toy-a2-w-a/ray-worker", id="text-takes-the-newest-attempt"),
    pytest.param(
        [*LATE, ended(pod("toy-a2-w-z", "workers", ("ray-worker",), 2, at=30), 137)],
        job("Running", 2),
        {"role": "worker"},
        "toy-a2-w-z/ray-worker",
        id="the-worker-that-failed",
    ),
]


@pytest.mark.parametrize(("pods", "document", "asked", "want"), CHOICES)
def test_choice(pods: list[Any], document: dict[str, Any], asked: dict[str, Any], want: str) -> None:
    assert choose(sources(pods), document, **asked).name == want


def test_nothing_to_choose_says_why() -> None:
    waiting = job("Provisioning", 1, message="KubeRay is not installed")
    with pytest.raises(UserError, match=r"toy has no driver \(Provisioning: KubeRay is not installed\)") as none:
        choose([], waiting)
    assert "not yet, or no longer" in none.value.remedy
    with pytest.raises(UserError, match="no worker of attempt 7") as old:
        choose(sources(LATE), job("Running", 2), role="worker", attempt=7)
    assert "--list" in old.value.remedy


def test_a_succeeded_job_does_not_show_an_old_inspection() -> None:
    assert stage(job("Succeeded", 1, *INSPECTED)) == ("driver",)
    with pytest.raises(UserError, match="no driver"):
        choose(sources(EARLY), job("Succeeded", 1, *INSPECTED))


def test_states() -> None:
    waiting = pod("p", "inspect", ("inspect",))
    waiting["status"] = {"phase": "Pending", "containerStatuses": [{"name": "inspect", "state": {"waiting": {"reason": "ErrImagePull"}}}]}
    assert [s.state for s in sources([waiting])] == ["waiting (ErrImagePull)"]
    assert [s.state for s in sources([ended(pod("p", "inspect", ("inspect",)), 3)])] == ["ended (Error 3)"]


def test_what_is_asked_for_is_bounded() -> None:
    source = choose(sources(LATE), job("Running", 2))
    bounded = {"container": "driver", "tailLines": "1000", "limitBytes": str(LIMIT_BYTES)}
    assert request(source, "1000", previous=False, follow=False) == bounded
    assert request(source, "5", previous=False, follow=True) == {"container": "driver", "tailLines": "5", "follow": "true"}
    assert request(source, "all", previous=True, follow=False) == {"container": "driver", "previous": "true"}


def test_exposition() -> None:
    text = '# HELP lprl_reward r\n# TYPE lprl_reward gauge\nlprl_reward{job="a b"} 0.25\nlprl_step{job="toy"} 7.0\nlprl_bad x\nother 1\n'
    assert parsed(text) == {"reward": 0.25, "step": 7.0}
    head = pod("h", "head", HEADS, 1)
    assert metrics_port(head) is None
    head["spec"]["containers"][1]["ports"] = [{"name": "lprl-metrics", "containerPort": 9464}]
    assert metrics_port(head) == 9464
