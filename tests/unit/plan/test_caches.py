"""What an engine keeps of a sequence, by kind of layer: it grows with tokens, up to a window, or not at all."""

import pytest
from tests.unit.lprl_api.layouts.published import published

from lprl_api.catalog.presets import preset_manifest
from lprl_api.model.layouts.planned import planned_shape
from lprl_api.model.model_shape import ModelShape
from lprl_api.model.shapes import SHAPES
from lprl_api.rules.parse import parse_job
from lprl_operator.plan.caches import sequence_bytes, state_bytes
from lprl_operator.plan.memory_engine import sequence_tokens
from lprl_operator.plan.plan import make_plan


def shape(name: str) -> ModelShape:
    return planned_shape(next(one.config for one in published() if name in one.stored))


@pytest.mark.parametrize("tensor", [1, 2, 8])
def test_keys_and_values_grow_with_tokens_and_are_shared_out_by_heads(tensor: int) -> None:
    qwen = SHAPES["qwen3-30b-a3b"]
    assert sequence_bytes(qwen, 1000, tensor, 2) == 1000 * 48 * 2 * max(1, 4 // tensor) * 128 * 2
    assert state_bytes(qwen, tensor) == 0


def test_a_latent_is_whole_on_every_rank() -> None:
    assert sequence_bytes(SHAPES["deepseek-v3"], 1000, 1, 2) == sequence_bytes(SHAPES["deepseek-v3"], 1000, 8, 2) == 1000 * 61 * 576 * 2


def test_a_windowed_layer_keeps_its_window() -> None:
    oss, each = shape("openai/gpt-oss-20b"), 2 * 8 * 64 * 2  # bytes of a token in one of 24 layers, half of them with a window of 128
    assert sequence_bytes(oss, 100, 1, 2) == 24 * 100 * each
    assert sequence_bytes(oss, 10_000, 1, 2) == 12 * (10_000 + 128) * each


def test_full_layers_of_gemma_have_other_heads_than_windowed_ones() -> None:
    gemma = shape("google/gemma-4-26B-A4B")
    assert sequence_bytes(gemma, 4096, 1, 2) == 25 * 1024 * 8 * 512 * 2 + 5 * 4096 * 2 * 1024 * 2


def test_a_linear_layer_keeps_a_state_however_long_the_sequence() -> None:
    hybrid = shape("Qwen/Qwen3.5-35B-A3B")
    state = 30 * (4 * 32 * 128 * 128 + 2 * 3 * (2 * 16 * 128 + 32 * 128))
    assert state_bytes(hybrid, 1) == state and state_bytes(hybrid, 4) == state // 4
    grows = 10 * 2 * 2 * 256 * 2
    assert [sequence_bytes(hybrid, tokens, 1, 2) for tokens in (1, 1000)] == [state + grows, state + 1000 * grows]


def test_an_indexer_keeps_keys_of_its_own_where_a_layer_has_one() -> None:
    glm, all_of_them = shape("zai-org/GLM-5.3"), shape("zai-org/GLM-5")
    assert sequence_bytes(all_of_them, 1000, 8, 2) == 1000 * 78 * (576 * 2 + 132)
    assert sequence_bytes(glm, 1000, 8, 2) == 1000 * (78 * 576 * 2 + 21 * 132)


def test_compressed_keys_stand_for_several_tokens() -> None:
    flash = shape("deepseek-ai/DeepSeek-V4-Flash")
    assert sequence_bytes(flash, 128_000, 8, 2) == 43 * 128 * 1024 + 21 * 32_000 * (1024 + 256) + 20 * 1000 * 1024


def test_a_plan_counts_longest_sequences_in_what_a_hybrid_keeps_and_advises_a_concurrency() -> None:
    document = preset_manifest("qwen3-30b-a3b-fp8")
    document["spec"]["topology"]["trainer"] |= {"pipeline": 1, "tensor": 1, "expert": 8, "maxTokensPerGpu": 8192}
    document["spec"]["topology"]["rollout"] |= {"gpusPerEngine": 1, "expert": 1}
    document["spec"]["optimizer"] |= {"cpuOffload": True}
    spec, hybrid = parse_job(document).spec, shape("Qwen/Qwen3.5-35B-A3B")
    plan = make_plan(spec.model_copy(update={"model": spec.model.model_copy(update={"shape": None})}), hybrid, planned=True)
    cache = next(item.bytes for phase in plan.gpus[0].phases for item in phase.items if item.cause == "KV cache")
    longest = sequence_tokens(spec, hybrid)
    assert plan.engine.concurrency == cache // sequence_bytes(hybrid, longest, 1, 2)
    assert any(f"topology.rollout.maxConcurrency {plan.engine.concurrency} admits no more" in note for note in plan.notes)
