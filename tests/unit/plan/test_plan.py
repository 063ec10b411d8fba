"""Plans: the published topologies, memory against a measured estimator, auto nodes, placement, limits."""

from typing import Any

import pytest

from lprl_api.catalog.presets import PRESETS, preset_manifest
from lprl_api.model.model_shape import Inspection, SourceQuantization
from lprl_api.model.shapes import SHAPES
from lprl_api.model.weights import unmatched
from lprl_api.rules.parse import parse_job
from lprl_api.spec.job import LowPrecisionRLJobSpec
from lprl_operator.plan.explain import explain
from lprl_operator.plan.plan import PlanError, make_plan
from lprl_operator.plan.types import JobPlan


def spec_of(name: str, **topology: Any) -> LowPrecisionRLJobSpec:
    document = preset_manifest(name)
    document["spec"]["topology"].update(topology)
    return parse_job(document).spec


@pytest.mark.parametrize(
    ("name", "nodes", "gpus", "data", "engines", "stages"),
    [
        ("qwen3-4b-fp8", 1, 8, 4, 4, (36,)),
        ("qwen3-30b-a3b-fp8", 2, 8, 4, 2, (12, 12, 12, 12)),
        ("qwen3-30b-a3b-int4", 1, 8, 2, 8, (48,)),
        ("moonlight-16b-a3b-int4", 1, 4, 2, 1, (27,)),
        ("qwen3-235b-a22b-int4", 8, 8, 2, 8, (24, 24, 24, 22)),
        ("kimi-k2-thinking-int4", 32, 8, 1, 32, (8, 8, 8, 8, 8, 8, 8, 5)),
    ],
)
def test_published_topologies(name: str, nodes: int, gpus: int, data: int, engines: int, stages: tuple[int, ...]) -> None:
    plan = make_plan(spec_of(name))
    assert (plan.nodes, plan.gpus_per_node, plan.ranks.trainer_ranks) == (nodes, gpus, nodes * gpus)
    assert (plan.groups.data_parallel, plan.ranks.engines, plan.groups.stage_layers) == (data, engines, stages)
    assert all(group.fits and group.limit_bytes > 0 for group in plan.gpus)
    assert plan.engine.concurrency >= 1


def state_gib(plan: JobPlan, stage: int) -> float:
    phase = plan.gpus[stage].phases[0]
    return sum(item.bytes for item in phase.items if item.cause in ("weights", "gradients", "optimizer")) / 2**30


@pytest.mark.parametrize(
    ("shape", "nodes", "layout", "gib"),
    [
        # GiB a rank of weights, gradients and optimizer (2 + 4 + 12/D bytes a parameter), from Megatron's own modules.
        ("qwen3-4b", 1, {"tensor": 2, "sequenceParallel": True}, 16.9),
        ("qwen3-30b-a3b", 1, {"tensor": 4, "expert": 8, "sequenceParallel": True}, 65.2),
        ("qwen3-30b-a3b", 2, {"tensor": 4, "expert": 8, "sequenceParallel": True}, 43.8),
    ],
)
def test_state_equals_the_estimator(shape: str, nodes: int, layout: dict[str, Any], gib: float) -> None:
    document = preset_manifest("qwen3-30b-a3b-int4")
    spec = document["spec"]
    spec.update(model={**spec["model"], "shape": shape}, precision={"training": "bf16", "rollout": "bf16"})
    spec["optimizer"].update(cpuOffload=False, precisionAware=False)
    spec["topology"].update(accelerator="B200-180GB", nodes=nodes, trainer={**layout, "maxTokensPerGpu": 4096})
    assert state_gib(make_plan(parse_job(document).spec), 0) == pytest.approx(gib, rel=0.02)


def test_kimi_host_memory_is_near_385_gb_of_optimizer() -> None:
    host = {item.cause: item.bytes for item in make_plan(spec_of("kimi-k2-thinking-int4")).host}
    assert 385e9 <= host["CPU optimizer"] < 385e9 * 1.1  # the fullest node; 12 bytes x 1026.4 B / 32 is the mean


@pytest.mark.parametrize("name", PRESETS)
def test_auto_finds_no_more_than_published(name: str) -> None:
    plan = make_plan(spec_of(name, nodes="auto"))
    assert plan.nodes <= PRESETS[name].nodes and all(group.fits for group in plan.gpus)


def test_auto_grows_until_it_fits() -> None:
    document = preset_manifest("qwen3-30b-a3b-int4")
    document["spec"]["optimizer"].update(cpuOffload=False, precisionAware=False)
    document["spec"]["topology"].update(nodes="auto")
    document["spec"]["topology"]["trainer"]["maxTokensPerGpu"] = 16384
    assert make_plan(parse_job(document).spec).nodes == 2
    document["spec"]["topology"]["nodes"] = 1
    with pytest.raises(PlanError) as caught:
        make_plan(parse_job(document).spec)
    assert "topology.nodes auto" in caught.value.errors[0].need


def test_what_a_remedy_names_does_fit() -> None:
    with pytest.raises(PlanError) as caught:
        make_plan(spec_of("kimi-k2-thinking-int4", accelerator="H100-80GB"))
    assert "topology.rollout.gpusPerEngine 16" in caught.value.errors[0].need
    document = preset_manifest("kimi-k2-thinking-int4")
    document["spec"]["topology"].update(accelerator="H100-80GB")
    document["spec"]["topology"]["rollout"].update(gpusPerEngine=16, expert=16)
    assert make_plan(parse_job(document).spec).ranks.engines == 16


def test_split_placement_has_three_roles() -> None:
    document = preset_manifest("qwen3-4b-fp8")
    document["spec"]["topology"].update(placement="split", nodes="auto")
    plan = make_plan(parse_job(document).spec)
    assert [(role.name, role.nodes) for role in plan.roles] == [("head", 1), ("trainer", 1), ("rollout", 1)]
    assert plan.ranks.rollout_nodes == 1 and plan.ranks.trainer_ranks == 8
    assert [group.role for group in plan.gpus] == ["trainer", "rollout"]
    assert "slept engine" not in {item.cause for group in plan.gpus for phase in group.phases for item in phase.items}


def test_an_engine_keeps_its_context_where_its_weights_came_back_for_a_push() -> None:
    """Measured on an H200: 11.9 GB in sync, 1.1 more than weights, staging and the trainer's own runtime."""
    document = preset_manifest("qwen3-4b-fp8")
    document["spec"]["topology"].update(placement="colocated")
    (group,) = make_plan(parse_job(document).spec).gpus
    kept = {phase.name: [item.bytes for item in phase.items if item.cause == "slept engine"] for phase in group.phases}
    assert kept["training"] == kept["sync"] != [] and kept["rollout"] == []


def laptop(**spec: Any) -> LowPrecisionRLJobSpec:
    document = preset_manifest("qwen3-4b-fp8")
    base = {key: document["spec"][key] for key in ("model", "conversion", "data", "checkpoint", "volumes")}
    base.update(algorithm={"steps": 3, "rolloutBatchSize": 4}, sampling={"maxResponseTokens": 64})
    base.update(spec)
    base["model"] = {**base["model"], "shape": spec.get("shape", "qwen3-0.6b")}
    base.pop("shape", None)
    return parse_job({**document, "spec": base}).spec


def test_a_manifest_is_a_fresh_value() -> None:
    preset_manifest("qwen3-4b-fp8")["spec"]["topology"]["rollout"]["gpusPerEngine"] = 4
    assert preset_manifest("qwen3-4b-fp8")["spec"]["topology"]["rollout"]["gpusPerEngine"] == 2


def test_laptop_counts_processes_and_host_memory() -> None:
    plan = make_plan(laptop(topology={"nodes": 2, "gpusPerNode": 2}))
    assert (plan.ranks.trainer_ranks, plan.ranks.engines, plan.ranks.data_parallel) == (4, 4, 4)
    assert plan.gpus[0].limit_bytes == 0 and plan.gpus[0].fits
    with pytest.raises(PlanError) as caught:
        make_plan(laptop(topology={"gpusPerNode": 2, "trainer": {"maxTokensPerGpu": 512}}), host_bytes_per_node=30 * 10**9)
    (error,) = caught.value.errors
    assert error.path == "spec.topology.gpusPerNode" and "topology.gpusPerNode 1" in error.need


def test_fallback_needs_memory_for_bf16() -> None:
    document = preset_manifest("kimi-k2-thinking-int4")
    document["spec"]["stability"] = {"action": "fallback-bf16"}
    with pytest.raises(PlanError) as caught:
        make_plan(parse_job(document).spec)
    (error,) = caught.value.errors
    assert error.path == "spec.stability.action" and "stability.action warn" in error.need


def test_unknown_shape_waits_for_inspection() -> None:
    document = preset_manifest("qwen3-4b-fp8")
    del document["spec"]["model"]["shape"]
    spec = parse_job(document).spec
    with pytest.raises(PlanError) as caught:
        make_plan(spec)
    assert caught.value.errors[0].path == "spec.model.shape"
    assert make_plan(spec, SHAPES["qwen3-4b"]).parameters == pytest.approx(4.02e9, rel=0.01)


def inspection(shape: str, **quantization: Any) -> Inspection:
    return Inspection(
        shape=SHAPES[shape],
        fingerprint="0" * 64,
        total_bytes=1,
        tensors=1,
        shards=1,
        quantization=SourceQuantization(**quantization),
    )


def test_quantised_source_is_served_as_it_is_and_dequantised_for_training() -> None:
    found = inspection("kimi-k2-thinking", format="int4-group", group_size=32, scope="routed-experts")
    plan = make_plan(spec_of("kimi-k2-thinking-int4"), inspection=found)
    assert [item.cause for item in plan.disk.conversion] == ["bf16 for training"]
    other = inspection("kimi-k2-thinking", format="int4-group", group_size=128, scope="routed-experts")
    with pytest.raises(PlanError) as caught:
        make_plan(spec_of("kimi-k2-thinking-int4"), inspection=other)
    assert caught.value.errors[0].path == "spec.precision.int4.groupSize"


def test_wrong_shape_row_and_full_disk() -> None:
    with pytest.raises(PlanError) as caught:
        make_plan(spec_of("qwen3-4b-fp8"), inspection=inspection("qwen3-8b"))
    assert caught.value.errors[0].path == "spec.model.shape" and "hidden 2560 in the row, 4096" in caught.value.errors[0].need
    with pytest.raises(PlanError) as caught:
        make_plan(spec_of("qwen3-4b-fp8"), free_bytes=10**9)
    assert caught.value.errors[0].path == "spec.conversion.volume"


def test_group_that_does_not_divide() -> None:
    shape = SHAPES["qwen3-0.6b"].model_copy(update={"ffn": 3072 + 64})
    with pytest.raises(PlanError) as caught:
        make_plan(laptop(precision={"training": "int4-qat", "rollout": "int4"}), shape)
    (error,) = caught.value.errors
    assert error.path == "spec.precision.int4.groupSize" and "64: mlp.down_proj has 3136" in error.need


@pytest.mark.parametrize("name", PRESETS)
def test_explanation_names_roles_ranks_and_every_stage(name: str) -> None:
    plan = make_plan(spec_of(name))
    text = explain(plan)
    assert text.count("    training |") == plan.groups.pipeline and text.count(" fits") >= plan.groups.pipeline
    assert f"{plan.ranks.trainer_ranks} ranks" in text and f"{plan.ranks.engines} engines" in text
    assert plan.model_validate(plan.document()) == plan


@pytest.mark.parametrize("name", PRESETS)
def test_explanation_is_at_most_140_columns_and_its_bars_add_up(name: str) -> None:
    plan = make_plan(spec_of(name))
    lines = explain(plan).splitlines()
    assert max(map(len, lines)) <= 140
    bars = [line for line in lines if line.startswith(("    training |", "    sync     |", "    rollout  |"))]
    phases = [(group, phase) for group in plan.gpus for phase in group.phases]
    assert len(bars) == len(phases)
    for bar, (group, phase) in zip(bars, phases, strict=True):
        filled = len(bar.split("|")[1].rstrip())
        assert filled == round(40 * phase.total_bytes / group.limit_bytes)


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        pytest.param("*.down_porj", False, id="typing-error"),
        pytest.param("*.down_proj", True, id="every-layer"),
        pytest.param("model.layers.0.*", True, id="first-layer"),
        pytest.param("model.layers.48.*", False, id="beyond-the-last-layer"),
        pytest.param("*.experts.127.up_proj", True, id="one-expert"),
        pytest.param("*.experts.128.up_proj", False, id="beyond-the-last-expert"),
        pytest.param("*.mlp.gate", True, id="router-is-excluded-anyway"),
        pytest.param("lm_head", True, id="head-is-excluded-anyway"),
        pytest.param("*.weight", False, id="tensor-not-module"),
    ],
)
def test_a_pattern_that_matches_no_module_is_a_note(pattern: str, matches: bool) -> None:
    document = preset_manifest("qwen3-30b-a3b-int4")
    document["spec"]["precision"]["excludeModules"] = [pattern]
    notes = [note for note in make_plan(parse_job(document).spec).notes if "excludeModules" in note]
    assert notes == (
        [] if matches else [f"precision.excludeModules {pattern!r} matches no module of Qwen3MoeForCausalLM: it leaves out nothing"]
    )


def test_patterns_of_prediction_layers_match() -> None:
    shape = SHAPES["deepseek-v3"] if "deepseek-v3" in SHAPES else next(s for s in SHAPES.values() if s.mtp_layers)
    assert unmatched(shape, (f"model.layers.{shape.layers}.*", "*.eh_proj", "*.eh_porj")) == ("*.eh_porj",)
