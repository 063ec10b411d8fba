"""A refused pod's message says which field to set, for every way a quota or LimitRange refuses, as real API servers word it."""

import pytest

from lprl_operator.resources.refused_pods import explained, pod_of

LACKS = "is forbidden: failed quota: small: must specify "
LOW = 'is invalid: spec.containers[{}].resources.requests: Invalid value: "1Gi": must be less than or equal to {} limit of 700Mi'
MAX = "is forbidden: [maximum memory usage per Container is 500Mi, but limit is 2Gi, but request is 4Gi]"
HEAD, WORKER, JOB = 'pods "a-a1-head-x7" ', 'pods "a-a1-workers-worker-9" ', 'pods "a-inspect-9" '
ON_HEAD, ON_DRIVER, ON_WORKER = (f"podTemplate.{name}.resources." for name in ("head", "driver", "workers"))
SAID = {
    "quota-ray-head": (HEAD + LACKS + "limits.memory for: ray-head", "head", [ON_HEAD + "limits.memory"]),
    "quota-both-containers": (
        HEAD + LACKS + "limits.cpu for: driver,ray-head; limits.memory for: driver",
        "head",
        [ON_DRIVER + "limits.cpu", ON_HEAD + "limits.cpu", ON_DRIVER + "limits.memory"],
    ),
    "quota-worker": (WORKER + LACKS + "limits.memory for: ray-worker", "worker", [ON_WORKER + "limits.memory"]),
    "quota-inspect-and-init": (
        JOB + LACKS + "limits.cpu for: inspect,reference; requests.ephemeral-storage for: inspect",
        "job",
        ["conversion.resources.limits.cpu", "conversion.resources.requests.ephemeral-storage"],
    ),
    "range-ray-head": (HEAD + LOW.format(0, "memory"), "head", [ON_HEAD + "limits.memory", "LimitRange"]),
    "range-driver": (HEAD + LOW.format(1, "cpu"), "head", [ON_DRIVER + "limits.cpu"]),
    "range-worker": (WORKER + LOW.format(0, "memory"), "worker", [ON_WORKER + "limits.memory"]),
    "range-conversion": (JOB + LOW.format(0, "memory"), "job", ["conversion.resources.limits.memory"]),
    "range-maximum": (HEAD + MAX, "head", [ON_HEAD + "limits.memory", ON_DRIVER + "limits.memory"]),
    "range-minimum": (
        JOB + "is forbidden: minimum cpu usage per Container is 1, but request is 250m",
        "job",
        ["conversion.resources.requests.cpu"],
    ),
    "range-no-limit": (
        WORKER + "is forbidden: maximum memory usage per Container is 1Gi.  No limit is specified",
        "worker",
        [ON_WORKER + "limits.memory"],
    ),
    "no-field-mends-it": (JOB + "is forbidden: exceeded quota: none, requested: pods=1, used: pods=0, limited: pods=0", "job", []),
    "webhook": ("admission webhook denied the request: no images from there", "job", []),
    "init-container-of-kuberay": (WORKER + LOW.format(0, "cpu").replace("containers", "initContainers"), "worker", []),
    "nothing-said": ("", "job", []),
}
NAMES = {
    "a-a1-head-x7q": "head",
    "a-a1-head": "head",
    "a-a1-workers-worker-x": "worker",
    "my-header-a1-workers-worker-x": "worker",
}


@pytest.mark.parametrize(("message", "pod", "fields"), SAID.values(), ids=SAID)
def test_a_refusal_names_the_field_that_mends_it(message: str, pod: str, fields: list[str]) -> None:
    found = explained(message, pod)
    assert found.startswith(message)
    assert [field for field in fields if field not in found] == [], found
    assert bool(fields) == (found != message)
    if fields and "limits" in fields[0]:
        assert "config.resources." in found, "and the chart's value for every job"


@pytest.mark.parametrize("name", NAMES)
def test_whose_pod_it_is_its_name_tells(name: str) -> None:
    assert pod_of(f'pods "{name}" is forbidden: failed quota') == NAMES[name]
