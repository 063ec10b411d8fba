"""The planner counts with what is used, written or not; the RunConfig carries it."""

from typing import Any

import pytest

from lprl_api.catalog.presets import PRESETS, preset_manifest
from lprl_api.derived.effective import effective
from lprl_api.model.model_shape import Inspection, SourceQuantization
from lprl_api.model.shapes import SHAPES
from lprl_api.rules.parse import parse_job
from lprl_api.spec.job import LowPrecisionRLJob
from lprl_operator.plan.plan import PlanError, make_plan
from lprl_operator.plan.types import JobPlan
from lprl_operator.resources import conversions
from lprl_operator.resources.runconfig import run_config
from lprl_operator.resources.settings import RenderSettings


def job_of(name: str, **changes: Any) -> LowPrecisionRLJob:
    document = preset_manifest(name)
    for path, value in changes.items():
        *parents, leaf = path.split("__")
        node = document["spec"]
        for part in parents:
            node = node.setdefault(part, {})
        node[leaf] = value
    return parse_job(document)


def inspected(shape: str, quantization: SourceQuantization | None = None) -> Inspection:
    found = quantization or SourceQuantization()
    return Inspection(shape=SHAPES[shape], fingerprint="0" * 64, total_bytes=1, tensors=1, shards=1, quantization=found)


@pytest.mark.parametrize("name", PRESETS)
def test_the_run_config_leaves_no_default_to_the_pods(name: str) -> None:
    job = job_of(name)
    config = run_config(job, make_plan(job.spec), inspected(PRESETS[name].shape), RenderSettings())
    algorithm, whole = config.algorithm, effective(job.spec, SHAPES[PRESETS[name].shape])
    assert None not in (algorithm.global_batch_size, algorithm.normalize_by_std, algorithm.whiten_advantages, algorithm.loss_aggregation)
    assert config.evaluation is not None and config.evaluation.sampling is not None
    assert None not in (config.rollout.tensor, config.rollout.context_length, config.precision.int4.scope)
    assert (algorithm, config.evaluation, config.rollout) == (whole.algorithm, whole.evaluation, whole.topology.rollout)


def test_a_reference_written_as_the_source_is_read_as_the_source() -> None:
    fp8 = inspected("qwen3-4b", SourceQuantization(format="fp8-block", block_size=(128, 128)))
    plain, written = job_of("qwen3-4b-fp8"), job_of("qwen3-4b-fp8", model__reference={"volume": "models", "path": "Qwen3-4B"})
    fmt = make_plan(plain.spec).rollout_format
    assert conversions.paths(written, fp8, fmt) == conversions.paths(plain, fp8, fmt)
    other = job_of("qwen3-4b-fp8", model__reference={"volume": "models", "path": "Other"})
    assert conversions.paths(other, fp8, fmt).reference.path == "Other"


def training_bytes(plan: JobPlan) -> int:
    return next(phase for phase in plan.gpus[0].phases if phase.name == "training").total_bytes


def test_a_sample_longer_than_max_tokens_per_gpu_is_planned_for_as_a_whole() -> None:
    def plan(tokens: int) -> JobPlan:
        return make_plan(job_of("qwen3-4b-fp8", topology__trainer__maxTokensPerGpu=tokens).spec)

    assert training_bytes(plan(1024)) == training_bytes(plan(8192 + 1024)) < training_bytes(plan(16384))


def test_over_sampled_prompts_are_stored_as_well() -> None:
    def stored(**changes: Any) -> int:
        plan = make_plan(job_of("qwen3-4b-fp8", algorithm__rolloutBatchSize=2048, algorithm__globalBatchSize=256, **changes).spec)
        return next(item.bytes for item in plan.host if item.cause == "object store")

    dynamic = {"enabled": True, "overSamplingBatchSize": 8192}
    assert stored(algorithm__dynamicSampling=dynamic) == 4 * stored()
    assert stored(algorithm__dynamicSampling={"enabled": True}) == stored()


def test_a_split_gives_engines_of_several_nodes_whole_nodes() -> None:
    split = {
        "precision": {},
        "topology__placement": "split",
        "topology__rollout": {"gpusPerEngine": 16, "tensor": 8, "memoryFraction": 0.7},
    }
    assert make_plan(job_of("qwen3-4b-fp8", topology__nodes=3, **split).spec).ranks.engines == 1
    with pytest.raises(PlanError) as caught:
        make_plan(job_of("qwen3-4b-fp8", topology__nodes=2, **split).spec)
    assert [error.need for error in caught.value.errors] == ["more nodes, or auto: the trainer takes multiples of 1, the engines of 2"]
