"""Reader: what a live read adds to what the watches told."""

from datetime import UTC, datetime
from typing import Any

import pytest

from lprl_api import names
from lprl_operator.reconcile.kube import reduce
from lprl_operator.reconcile.kube.cache import Cache
from lprl_operator.reconcile.kube.reader import Reader
from lprl_operator.reconcile.observed import Key

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TOY = Key("ns", "toy")
JOBS = f"/apis/{names.API_VERSION}/namespaces/ns/{names.PLURAL}"


class Lists:
    """An API server that answers lists: items by path; what was asked for is noted."""

    def __init__(self, **items: list[dict[str, Any]]) -> None:
        self.items = items
        self.asked: list[tuple[str, dict[str, str]]] = []

    def get(self, path: str, **query: str) -> dict[str, Any]:
        self.asked.append((path, query))
        return {"items": self.items.get(path.rpartition("/")[2], [])}


def meta(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "namespace": "ns", "uid": f"uid-{name}", "resourceVersion": "1", **more}


def test_a_job_is_read_by_name_from_a_list() -> None:
    document = {"metadata": meta("toy"), "spec": {}}
    api, cache = Lists(**{names.PLURAL: [document]}), Cache()
    assert Reader(api, cache).job(TOY) == document  # type: ignore[arg-type]
    assert api.asked == [(JOBS, {"fieldSelector": "metadata.name=toy"})]
    assert cache.uid(TOY) == "uid-toy"


def test_a_job_that_is_gone_is_none() -> None:
    assert Reader(Lists(), Cache()).job(TOY) is None  # type: ignore[arg-type]


def inspect_job(finished: bool) -> dict[str, Any]:
    owner = {"kind": names.KIND, "name": "toy", "uid": "uid-toy", "controller": True}
    status = {"conditions": [{"type": "Complete", "status": "True"}]} if finished else {}
    return {"metadata": meta("toy-inspect", ownerReferences=[owner]), "spec": {}, "status": status}


def inspect_pod() -> dict[str, Any]:
    owner = {"kind": "Job", "name": "toy-inspect", "uid": "uid-toy-inspect", "controller": True}
    labels = {reduce.JOB_NAME: "toy-inspect", names.LABEL_JOB: "toy"}
    ended = {"name": "inspect", "state": {"terminated": {"exitCode": 0, "message": "the report"}}}
    status = {"phase": "Succeeded", "containerStatuses": [ended]}
    return {"metadata": meta("toy-inspect-x", ownerReferences=[owner], labels=labels), "spec": {}, "status": status}


@pytest.mark.parametrize("finished", [True, False])
def test_a_report_whose_pod_no_watch_told_of_yet_is_fetched(finished: bool) -> None:
    """Jobs and pods are two watches: without this a job would be judged to have ended without a report."""
    api, cache = Lists(pods=[inspect_pod()]), Cache()
    cache.put("Job", inspect_job(finished))
    Reader(api, cache).children(TOY, {"metadata": meta("toy")}, NOW)  # type: ignore[arg-type]
    seen = cache.observed(TOY, "uid-toy", NOW).inspect
    assert seen is not None and [e.message for e in seen.exits] == (["the report"] if finished else [])
