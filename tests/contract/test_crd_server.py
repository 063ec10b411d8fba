"""The CRD on a real API server: accepted, defaults filled in, CEL rules refuse, columns print. Needs KUBECONFIG and kubectl."""

import json
import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.unit.lprl_api.illegal.test_illegal import patched

from lprl_api.catalog.presets import PRESETS, preset_manifest
from lprl_api.crd.generate import crd
from lprl_api.rules.parse import parse_job
from lprl_operator.resources import pods

ILLEGAL = Path(__file__).parents[1] / "unit" / "lprl_api" / "illegal"
pytestmark = pytest.mark.cluster
NAME = "crd-contract"


def kubectl(*words: str, documents: Sequence[dict[str, Any]] = ()) -> subprocess.CompletedProcess[str]:
    """Run kubectl, documents on its standard input."""
    text = "\n---\n".join(map(json.dumps, documents)) or None
    return subprocess.run(["kubectl", *words], input=text, capture_output=True, text=True, timeout=240, check=False)


def manifest(name: str = NAME, **changes: Any) -> dict[str, Any]:
    """Return a preset under another name, with dotted changes below spec."""
    document = preset_manifest("qwen3-4b-fp8")
    document["metadata"]["name"] = name
    for path, value in changes.items():
        *parents, leaf = path.split("__")
        node = document["spec"]
        for part in parents:
            node = node.setdefault(part, {})
        node[leaf] = value
    return document


@pytest.fixture(scope="module", autouse=True)
def installed(api_server: None) -> Iterator[None]:
    """Install the CRD and wait until it is served."""
    applied = kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", documents=[crd()])
    assert applied.returncode == 0, applied.stderr
    waited = kubectl("wait", "--for=condition=Established", "--timeout=180s", "crd/lowprecisionrljobs.lprl.dev")
    assert waited.returncode == 0, waited.stderr
    deadline = time.monotonic() + 180
    while kubectl("get", "lprljobs").returncode and time.monotonic() < deadline:
        time.sleep(0.2)
    yield
    kubectl("delete", "lprljob", NAME, "--ignore-not-found")


def create(*documents: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    return kubectl("create", "--dry-run=server", "-o", "json", "-f", "-", documents=documents)


@pytest.mark.parametrize("name", PRESETS)
def test_defaults_appear_and_parse_to_the_same_spec(name: str) -> None:
    document = preset_manifest(name)
    document["metadata"]["name"] = f"{name}-x"
    made = create(document)
    assert made.returncode == 0, made.stderr
    stored = json.loads(made.stdout)
    assert stored["spec"]["failurePolicy"]["maxRestarts"] == 3 and stored["spec"]["stability"]["action"] == "warn"
    assert parse_job(stored).spec == parse_job(document).spec


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sampling__temperature": 0}, "spec.sampling.temperature"),
        ({"precision__training": "int4-qat"}, "spec.precision.rollout"),
        ({"model__source__s3": {"uri": "s3://b/m"}}, "exactly one of volume"),
        ({"checkpoint__volume": "nope"}, "spec.checkpoint.volume"),
        ({"algorithm__globalBatchSize": 100}, "globalBatchSize must divide"),
        ({"backends__trainer": "torch"}, "spec.topology.trainer"),
        ({"topology__nodes": "many"}, "or auto"),
        ({"topology__nodes": 0}, "or auto"),
        ({"topology__trainer__tensor": 1}, "spec.topology.trainer.sequenceParallel"),
        ({"volumes__A_b": {"persistentVolumeClaim": "x"}}, "DNS labels"),
        ({"algorithm__stepz": 1}, "spec.algorithm.stepz"),
        ({"data__prompts__path": "x.csv"}, ".jsonl or .parquet"),
        ({"data__reward": {"type": "remote"}}, "url is needed"),
    ],
)
def test_refused(changes: dict[str, Any], words: str) -> None:
    made = create(manifest(**changes))
    assert made.returncode != 0 and words in made.stderr


def laptop(name: str, changes: dict[str, Any]) -> dict[str, Any]:
    document = patched("laptop", changes)
    document["metadata"]["name"] = name
    return document


def test_settings_of_pods_that_are_wrong_are_refused_by_the_schema_with_their_field() -> None:
    cases = [case for case in yaml.safe_load((ILLEGAL / "pods.yaml").read_text()) if case.get("server", True)]
    made = create(*(laptop(case["id"], case["set"]) for case in cases))
    said = made.stderr.split("Error from server ")[1:]  # one after the other, in order
    assert len(said) == len(cases) > 40, made.stderr
    for case, words in zip(cases, said, strict=True):
        for path in case["errors"]:
            parent = re.sub(r"(\[\d+\])?\.[^.\[]*(\[\d+\])?$", "", f"spec.{path}")
            assert parent in words or f"spec.{path}" in words, f"{path}: {words}"


def test_settings_of_pods_that_kubernetes_takes_are_stored_and_parse_to_the_same_spec() -> None:
    cases = yaml.safe_load((ILLEGAL.parent / "legal_pods.yaml").read_text())
    documents = [laptop(case["id"], {"podTemplate": case["set"]}) for case in cases]
    made = create(*documents)
    assert made.returncode == 0, made.stderr
    found = json.loads("[" + made.stdout.replace("\n}\n{", "\n},\n{") + "]")  # kubectl prints one object after the other
    stored = {item["metadata"]["name"]: item for item in found}
    for document in documents:
        template = parse_job(stored[document["metadata"]["name"]]).spec.pod_template
        assert pods.said(template) == pods.said(parse_job(document).spec.pod_template)


def test_names() -> None:
    assert create(manifest("a" * 45)).returncode == 0
    assert "at most 45" in create(manifest("a" * 46)).stderr
    assert "no dots" in create(manifest("a.b")).stderr
    assert create(manifest(topology__nodes="auto")).returncode == 0


STATUS = {
    "phase": "Running",
    "precision": "fp8/fp8",
    "startTime": "2026-01-01T00:00:00Z",
    "nodes": {"summary": "1/1"},
    "conversion": {"progress": "3/3"},
    "training": {"summary": "12/50", "reward": "0.71", "mismatch": "0.0004", "tokensPerSecond": "5210"},
}
FIXED: tuple[dict[str, Any], ...] = (
    {"optimizer": {"learningRate": 0.5}},
    {"algorithm": {"seed": 5}},
    {"algorithm": {"globalBatchSize": 16}},
    {"algorithm": {"kl": {"coefficient": 0.1}}},
    {"sampling": {"maxResponseTokens": 5}},
    {"backends": {"rollout": "torch"}},
    {"checkpoint": {"path": "elsewhere"}},
    {"checkpoint": {"loadFrom": {"volume": "models", "path": "x"}}},
    {"conversion": {"path": "elsewhere"}},
    {"precision": {"rollout": "bf16"}},
    {"topology": {"nodes": 2}},
    {"data": {"shuffle": False}},
    {"model": {"shape": "qwen3-8b"}},
)
"""Changes of what decides the result."""


def test_transitions_and_columns() -> None:
    kubectl("delete", "lprljob", NAME, "--ignore-not-found")
    assert kubectl("create", "-f", "-", documents=[manifest()]).returncode == 0

    def patch(spec: dict[str, Any]) -> str:
        return kubectl("patch", "lprl", NAME, "--type=merge", "-p", json.dumps({"spec": spec})).stderr

    assert patch({"algorithm": {"steps": 50}}) == ""  # not started yet
    written = kubectl("patch", "lprl", NAME, "--subresource=status", "--type=merge", "-p", json.dumps({"status": STATUS}))
    assert written.returncode == 0, written.stderr
    for spec in FIXED:
        assert "immutable once the job has started" in patch(spec)
    assert "may only be raised" in patch({"algorithm": {"steps": 10}})
    assert patch({"algorithm": {"steps": 60}, "suspend": True, "ttlSecondsAfterFinished": 5}) == ""
    claim = {"volumes": {"models": {"persistentVolumeClaim": "right"}}}
    assert patch(claim | {"checkpoint": {"everySteps": 3, "keep": 2}, "podTemplate": {"nodeSelector": {"a": "b"}}}) == ""
    trains = STATUS | {"trainingStartTime": "2026-01-01T00:00:00Z"}
    kubectl("patch", "lprl", NAME, "--subresource=status", "--type=merge", "-p", json.dumps({"status": trains}))
    assert "claims of spec.volumes are immutable once training has begun" in patch({"volumes": {"models": {"persistentVolumeClaim": "x"}}})
    assert patch({"volumes": {"more": {"persistentVolumeClaim": "x"}}}) == ""
    header, row = kubectl("get", "lprljobs", NAME).stdout.splitlines()
    assert header.split() == ["NAME", "PHASE", "PRECISION", "NODES", "CONVERTED", "STEP", "REWARD", "AGE"]
    assert row.split()[:7] == [NAME, "Running", "fp8/fp8", "1/1", "3/3", "12/50", "0.71"]
    wide = kubectl("get", "lprl", NAME, "-o", "wide").stdout.splitlines()[0].split()
    assert wide[8:] == ["EVAL", "MISMATCH", "TOKENS/S", "ATTEMPT", "CHECKPOINT", "MESSAGE"]
