"""Rendered conversions, names and settings that are merged."""

import json

import pytest

from lprl_api.model.model_shape import SourceQuantization
from lprl_api.rules.parse import parse_job
from lprl_api.wire.runconfig import RunConfig
from lprl_operator.plan.plan import make_plan
from lprl_operator.resources import conversions, naming, pods
from lprl_operator.resources.render import render_all
from lprl_operator.resources.settings import RenderSettings

LONG = "a" * 45
EXPRESSION = {"key": "zone", "operator": "In", "values": ["a"]}
NEAR = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [EXPRESSION]}]}}
NEEDS = [
    pytest.param("bf16", {}, [], "models:toy", id="nothing"),
    pytest.param("int4", {}, ["int4-group"], None, id="for-rollout"),
    pytest.param("bf16", {"format": "fp8-block", "blockSize": [128, 128]}, ["bf16"], None, id="dequantise-to-train"),
    pytest.param("fp8", {"format": "fp8-block", "blockSize": [128, 128]}, ["bf16"], "models:toy", id="published-fp8-is-served-as-it-is"),
    pytest.param("int4", {"format": "int4-group", "groupSize": 32}, ["bf16"], "models:toy", id="published-int4-is-served-as-it-is"),
    pytest.param("int4", {"format": "fp8-block", "blockSize": [128, 128]}, ["bf16", "int4-group"], None, id="both"),
]


@pytest.mark.parametrize(("rollout", "source", "kinds", "rollout_path"), NEEDS)
def test_conversions_a_job_needs(make_manifest, lib, rollout, source, kinds, rollout_path):
    job = parse_job(make_manifest(precision={"training": "bf16", "rollout": rollout, "int4": {"groupSize": 32}}))
    inspection = lib.INSPECTION.model_copy(update={"quantization": SourceQuantization.model_validate(source)})
    fmt = make_plan(job.spec, inspection=inspection).rollout_format
    made = conversions.needed(job, inspection, fmt)
    found = conversions.paths(job, inspection, fmt)
    assert [c.config.format.kind for c in made] == kinds
    assert str(found.model) == ("models:toy" if "bf16" not in kinds else str(made[0].target))
    assert found.reference == found.model
    if rollout_path is not None:
        assert str(found.rollout) == rollout_path
    elif kinds:
        assert found.rollout == made[-1].target


def test_conversions_are_shared_by_content_and_place_only(make_manifest, lib):
    def name(**changes):
        job = parse_job(make_manifest(**changes))
        return [c.name for c in conversions.needed(job, lib.INSPECTION, make_plan(job.spec, inspection=lib.INSPECTION).rollout_format)]

    same = name()
    assert name(name="other", uid="x", optimizer={"learningRate": 0.1}) == same
    assert name(conversion={"volume": "models", "parallelism": 9}) == same
    assert name(conversion={"volume": "models", "path": "elsewhere"}) != same
    assert name(conversion={"volume": "checkpoints"}) != same


@pytest.mark.parametrize(
    ("ours", "theirs", "want"),
    [
        pytest.param({"a": 1}, {"a": 2, "b": 3}, {"a": 1, "b": 3}, id="ours-stays"),
        pytest.param([1], [1, 2], [1, 2], id="appended-once"),
        pytest.param({"x": {"l": [1]}}, {"x": {"l": [2], "m": 1}}, {"x": {"l": [1, 2], "m": 1}}, id="deep"),
    ],
)
def test_merge(ours, theirs, want):
    before = json.dumps([ours, theirs])
    assert pods.merge(ours, theirs) == want
    assert json.dumps([ours, theirs]) == before, "neither input is changed"


def test_documents_share_no_mapping(rendered):
    """Changing one rendered document never changes another."""
    seen: dict[int, str] = {}

    def walk(value, where):
        if isinstance(value, dict | list):
            assert id(value) not in seen, f"{where} shares a value with {seen[id(value)]}"
            seen[id(value)] = where
            for key, child in value.items() if isinstance(value, dict) else enumerate(value):
                walk(child, f"{where}.{key}")

    documents = rendered(podTemplate={"tolerations": [{"key": "a"}], "affinity": {"nodeAffinity": NEAR}})
    for (kind, name), document in documents.items():
        walk(document, f"{kind}/{name}")


def test_names_stay_within_limits_for_any_attempt():
    for attempt in (1, 99, 10_000, 10**9):
        assert len(naming.cluster(LONG, attempt)) <= 53
        assert len(naming.auth_secret(naming.cluster(LONG, attempt))) <= 50
        assert len({naming.cluster(LONG, a) for a in range(attempt, attempt + 50)}) == 50


def test_metrics_can_be_off(make_manifest, lib):
    settings = RenderSettings(prometheus_port=None, network_policy=False)
    job = parse_job(make_manifest())
    documents = render_all(job, make_plan(job.spec, inspection=lib.INSPECTION), lib.INSPECTION, settings)
    config = next(RunConfig.model_validate_json(d["data"]["runconfig.json"]) for d in documents if "runconfig.json" in d.get("data", {}))
    assert config.tracking.prometheus_port is None
    assert not [d for d in documents if d["kind"] == "NetworkPolicy"]
