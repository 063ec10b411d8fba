"""check() never raises and parse_job reports every schema error, whatever the sizes are."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lprl_api.catalog.presets import PRESETS, preset_manifest
from lprl_api.field_error import InvalidJob
from lprl_api.model.shapes import SHAPES
from lprl_api.rules.check import check
from lprl_api.rules.parse import parse_job
from lprl_api.spec.job import LowPrecisionRLJobSpec
from lprl_operator.plan.plan import PlanError, make_plan

SIZES = st.sampled_from([1, 2, 3, 4, 5, 7, 8, 16, 32, 64])


@st.composite
def manifests(draw: st.DrawFn) -> dict[str, Any]:
    """Return a preset with random layout, precision and accelerator: well-formed, rarely legal."""
    document = preset_manifest(draw(st.sampled_from(sorted(PRESETS))))
    spec = document["spec"]
    spec["model"]["shape"] = draw(st.sampled_from(sorted(SHAPES)))
    trainer, rollout = spec["topology"]["trainer"], spec["topology"]["rollout"]
    for name in ("tensor", "pipeline", "context", "expert", "expertTensor"):
        trainer[name] = draw(SIZES)
    trainer["lastStageLayers"] = draw(st.none() | SIZES)
    trainer["sequenceParallel"] = draw(st.booleans())
    rollout.update(gpusPerEngine=draw(SIZES), tensor=draw(st.none() | SIZES), expert=draw(SIZES))
    accelerator = draw(st.sampled_from(["cpu", "A100-80GB", "H100-80GB", "H200-141GB", "B200-180GB", "no-such"]))
    spec["topology"].update(
        accelerator=accelerator,
        nodes=draw(SIZES | st.just("auto")),
        gpusPerNode=draw(st.none() | SIZES),
        placement=draw(st.sampled_from(["colocated", "split"])),
    )
    spec["precision"].update(
        training=draw(st.sampled_from(["bf16", "fp8", "int4-qat"])), rollout=draw(st.sampled_from(["bf16", "fp8", "int4"]))
    )
    spec["backends"] = {"trainer": draw(st.sampled_from(["torch", "megatron"])), "rollout": draw(st.sampled_from(["torch", "sglang"]))}
    return document


@settings(max_examples=150, deadline=None)
@given(manifests())
def test_rules_and_plan_never_crash(document: dict[str, Any]) -> None:
    spec = parse_job(document).spec
    errors = check(spec)
    assert all(error.path.startswith("spec.") and error.got and error.need for error in errors)
    try:
        plan = make_plan(spec)
    except PlanError as error:
        assert error.errors and (not errors or error.errors == errors)
    else:
        assert not errors
        assert plan.ranks.trainer_ranks == plan.groups.data_parallel * plan.groups.tensor * plan.groups.pipeline * plan.groups.context
        assert sum(plan.groups.stage_layers) == plan.shape.layers
        assert sum(group.count for group in plan.gpus) == plan.nodes * plan.gpus_per_node


def test_a_known_shape_is_used_without_inspection_and_none_is_needed() -> None:
    document = preset_manifest("qwen3-30b-a3b-int4")
    document["spec"]["topology"]["trainer"]["expert"] = 5
    document["spec"]["topology"]["nodes"] = 5
    assert [error.path for error in check(parse_job(document).spec)] == ["spec.topology.trainer.expert"]
    del document["spec"]["model"]["shape"]
    assert check(parse_job(document).spec) == []


@pytest.mark.parametrize("document", [[], None, "text", {}, {"apiVersion": "lprl.dev/v1alpha1"}])
def test_no_manifest_at_all(document: Any) -> None:
    with pytest.raises(InvalidJob) as caught:
        parse_job(document)
    assert caught.value.errors


def test_server_side_metadata_and_status_are_ignored() -> None:
    document = preset_manifest("qwen3-4b-fp8")
    document["metadata"].update(managedFields=[{}], resourceVersion="7", uid="u", generation=3, finalizers=["x"])
    document["status"] = {"phase": "Running"}
    job = parse_job(document)
    assert (job.metadata.generation, job.metadata.uid, job.metadata.resource_version) == (3, "u", "7")


def test_a_wrong_key_is_what_is_shown() -> None:
    document = preset_manifest("qwen3-4b-fp8")
    document["spec"]["volumes"]["Models"] = {"persistentVolumeClaim": "models"}
    with pytest.raises(InvalidJob) as caught:
        parse_job(document)
    assert [(error.path, error.got) for error in caught.value.errors] == [("spec.volumes.Models", "Models")]


def test_whole_numbers_are_numbers() -> None:
    document = preset_manifest("qwen3-4b-fp8")
    document["spec"]["optimizer"]["weightDecay"] = 0
    assert parse_job(document).spec.optimizer.weight_decay == 0.0


def test_every_integer_a_user_writes_is_bounded() -> None:
    def integers(node: Any) -> Iterator[dict[str, Any]]:
        if isinstance(node, list):
            for child in node:
                yield from integers(child)
        if isinstance(node, dict):
            if node.get("type") == "integer" and "enum" not in node:
                yield node
            for child in node.values():
                yield from integers(child)

    found = list(integers(LowPrecisionRLJobSpec.model_json_schema()))
    assert len(found) > 30 and all(node["maximum"] <= 2**63 - 1 for node in found)
