"""A model that nothing trains yet can be planned, and no job of it is accepted."""

import pytest
from tests.unit.lprl_api.layouts.published import published
from tests.zoo.tiny import tiny_config

from lprl_api.catalog.presets import preset_manifest
from lprl_api.field_error import FieldError
from lprl_api.model.layouts.planned import planned_shape
from lprl_api.model.megatron import STAGED, why_not_staged
from lprl_api.model.model_shape import Inspection
from lprl_api.model.proven import PROVEN
from lprl_api.model.shapes import SHAPES
from lprl_api.model.shapes_planned import PLANNED_SHAPES
from lprl_api.rules.check import check, untrained
from lprl_api.rules.parse import parse_job
from lprl_api.spec.job import LowPrecisionRLJobSpec
from lprl_operator.plan.plan import PlanError, make_plan

PUBLISHED = {
    "qwen3.5-9b": "Qwen/Qwen3.5-9B",
    "qwen3.5-35b-a3b": "Qwen/Qwen3.5-35B-A3B",
    "glm-4.7-flash": "zai-org/GLM-4.7-Flash",
    "glm-4.6": "zai-org/GLM-4.6",
    "kimi-k2.5": "moonshotai/Kimi-K2.5",
}


def spec(shape: str | None, trainer: str = "megatron") -> LowPrecisionRLJobSpec:
    document = preset_manifest("qwen3-4b-fp8")
    document["spec"]["model"]["shape"] = shape
    document["spec"]["backends"]["trainer"] = trainer
    return parse_job(document).spec


def about_the_model(errors: list[FieldError]) -> list[FieldError]:
    return [error for error in errors if error.path.startswith("spec.model")]


@pytest.mark.parametrize("name", PLANNED_SHAPES)
def test_a_row_is_what_its_published_file_says(name: str) -> None:
    config = next(one.config for one in published() if PUBLISHED[name] in one.stored)
    assert planned_shape(config) == SHAPES[name]


@pytest.mark.parametrize("trainer", ["megatron", "torch"])
@pytest.mark.parametrize("name", PLANNED_SHAPES)
def test_a_job_of_a_model_that_nothing_trains_is_refused_and_its_plan_is_not(name: str, trainer: str) -> None:
    (error,) = about_the_model(check(spec(name, trainer)))
    assert error.path == "spec.model.shape" and error.got == name and "a model that can be trained" in error.need
    assert about_the_model(check(spec(name, trainer), planned=True)) == []
    assert untrained(spec(name, trainer)) == [error]
    with pytest.raises(PlanError, match="a model that can be trained"):
        make_plan(spec(name, trainer))


def test_a_language_model_inside_another_is_refused_by_its_inspection() -> None:
    shape = SHAPES["qwen3-4b"]
    seen = Inspection(shape=shape, fingerprint="0" * 64, total_bytes=1, tensors=1, shards=1, model_class="LlavaForConditionalGeneration")
    (error,) = about_the_model(check(spec(None), shape, seen))
    assert error.path == "spec.model.source" and "megatron trains no language model that is a part of another" in error.need
    assert about_the_model(check(spec(None), shape, seen.model_copy(update={"model_class": None}))) == []


def test_models_that_are_trained_are_not_asked_about() -> None:
    assert [name for name in SHAPES if untrained(spec(name))] == list(PLANNED_SHAPES)


@pytest.mark.parametrize("name", ["glm-4.7-flash", "glm-4.6"])
def test_a_proven_family_is_served_by_the_torch_engine_alone_and_trained_by_who_has_a_table(name: str) -> None:
    for trainer, rollout, said in (
        ("torch", "torch", ""),
        ("megatron", "torch", ""),
        ("torch", "sglang", "backends.rollout torch alone serves"),
        ("megatron", "sglang", "backends.rollout torch alone serves"),
    ):
        document = preset_manifest("qwen3-4b-fp8")
        document["spec"]["model"]["shape"] = name
        document["spec"]["backends"] |= {"trainer": trainer, "rollout": rollout}
        found = untrained(parse_job(document).spec)
        assert bool(found) == bool(said) and all(said in error.need for error in found)


def test_a_model_that_kimi_k25_is_a_part_of_is_trained_by_both_trainers_after_its_inspection() -> None:
    shape = SHAPES["kimi-k2.5"]
    seen = Inspection(shape=shape, fingerprint="0" * 64, total_bytes=1, tensors=1, shards=1, model_class="KimiK25ForConditionalGeneration")
    for trainer in ("torch", "megatron"):
        document = preset_manifest("qwen3-4b-fp8")
        document["spec"]["model"]["shape"] = None
        document["spec"]["backends"] |= {"trainer": trainer, "rollout": "torch"}
        assert about_the_model(check(parse_job(document).spec, shape, seen)) == []


def test_why_megatron_refuses_a_family_is_said_of_proven_ones() -> None:
    assert set(PROVEN) >= STAGED and all(why_not_staged(name, on_cpus=True) is None for name in STAGED)
    assert why_not_staged("olmo3", on_cpus=True) == "it has no table of this family"


@pytest.mark.parametrize("name", ["qwen3.5-9b", "qwen3.5-35b-a3b"])
@pytest.mark.parametrize("accelerator", ["cpu", "H100-80GB"])
def test_gated_delta_nets_are_trained_by_megatron_on_cpu_processes_alone(name: str, accelerator: str) -> None:
    document = preset_manifest("qwen3-4b-fp8")
    document["spec"]["model"]["shape"] = name
    document["spec"]["backends"] |= {"trainer": "megatron", "rollout": "torch"}
    document["spec"]["topology"]["accelerator"] = accelerator
    told = [error.need for error in untrained(parse_job(document).spec)]
    assert len(told) == (accelerator != "cpu") and all("CPU processes alone (accelerator cpu)" in need for need in told)


@pytest.mark.parametrize(("pipeline", "last", "refused"), [(2, None, False), (2, 2, False), (2, 3, True), (4, None, False)])
def test_layers_that_share_a_choice_of_keys_lie_in_one_stage(pipeline: int, last: int | None, refused: bool) -> None:
    """GLM-5's indexer, in layers 0, 2, 4 and 6 of eight."""
    config = tiny_config("glm_moe_dsa", {"num_hidden_layers": 8, "indexer_types": ["full", "shared"] * 4}).to_dict()
    shape = planned_shape({**config, "architectures": ["GlmMoeDsaForCausalLM"]})
    document = preset_manifest("qwen3-4b-fp8")
    document["spec"]["model"]["shape"] = None
    document["spec"]["backends"] |= {"trainer": "megatron", "rollout": "torch"}
    document["spec"]["topology"]["trainer"] |= {"pipeline": pipeline, "lastStageLayers": last}
    errors = [error for error in check(parse_job(document).spec, shape) if "indexer" in error.need]
    assert [error.path for error in errors] == ["spec.topology.trainer.pipeline"] * refused
