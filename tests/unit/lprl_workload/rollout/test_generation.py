import random

import pytest
import torch
from transformers.cache_utils import DynamicLayer

from lprl_api.model.model_shape import Mla, ModelShape
from lprl_workload.data import GenerationRequest
from lprl_workload.rollout.dynamic import keep_group
from lprl_workload.rollout.generation import Row, StopRule, batches
from lprl_workload.rollout.kv_cache import GrowingLayer, bytes_per_token


def rows_of(rng: random.Random, count: int) -> list[Row]:
    return [Row(GenerationRequest(tuple(range(rng.randint(1, 30))), i), rng.randint(1, 20)) for i in range(count)]


@pytest.mark.parametrize(("max_rows", "max_tokens"), [(512, 10**9), (7, 10**9), (512, 200), (3, 1)])
def test_batches_hold_every_row_once_within_limits(max_rows: int, max_tokens: int) -> None:
    rows = rows_of(random.Random(0), 100)
    parts = batches(rows, max_rows, max_tokens)
    assert sorted(id(r) for part in parts for r in part) == sorted(id(r) for r in rows)
    for part in parts:
        assert 1 <= len(part) <= max_rows
        widest = max(len(r.request.prompt_ids) + r.limit for r in part)
        assert len(part) == 1 or widest * len(part) <= max_tokens


def test_batches_do_not_depend_on_the_order_of_requests() -> None:
    rows = rows_of(random.Random(1), 60)
    mixed = rows[:]
    random.Random(2).shuffle(mixed)
    assert [[id(r) for r in part] for part in batches(rows, 8, 300)] == [[id(r) for r in part] for part in batches(mixed, 8, 300)]


def decode(ids: list[int]) -> str:
    return "".join(chr(i) for i in ids)


@pytest.mark.parametrize(
    ("text", "hit"),
    [("abc", False), ("ab\n", False), ("ab\n\n", True), ("x" * 50 + "\n\n", True), ("stop", True), ("stop here", False), ("a$", True)],
)
def test_stop_rule_sees_ids_and_strings_at_the_end(text: str, hit: bool) -> None:
    rule = StopRule(frozenset({ord("$")}), ("\n\n", "stop"), decode)
    assert rule.hits([ord(c) for c in text]) is hit or (text == "stop here" and "stop" in text[-8:])


def test_growing_layer_equals_the_copying_layer_through_appends_and_selects() -> None:
    generator = torch.Generator().manual_seed(0)
    ours, theirs = GrowingLayer(), DynamicLayer()
    rows = 3
    for step, new in enumerate([9, 1, 1, 20, 1, 40, 1]):
        keys = torch.randn(rows, 2, new, 8, generator=generator)
        values = torch.randn(rows, 2, new, 4, generator=generator)
        for got, want in zip(ours.update(keys, values), theirs.update(keys, values), strict=True):
            assert torch.equal(got, want)
        assert ours.get_seq_length() == theirs.get_seq_length()
        if step in (1, 3):
            pick = torch.tensor([0, 0, 2, 1, 1]) if step == 1 else torch.tensor([4, 1])
            ours.select(pick)
            theirs.batch_select_indices(pick)
            rows = len(pick)
            assert torch.equal(ours.keys, theirs.keys) and torch.equal(ours.values, theirs.values)


def test_bytes_per_token() -> None:
    common = dict(architecture="X", layers=3, hidden=64, heads=4, kv_heads=2, head_dim=16, ffn=64, vocab=9, tied_embeddings=False)
    assert bytes_per_token(ModelShape(family="qwen3", **common), 2) == 3 * 2 * 2 * 16 * 2
    mla = Mla(kv_lora_rank=8, qk_nope_head_dim=16, qk_rope_head_dim=8, v_head_dim=12)
    assert bytes_per_token(ModelShape(family="deepseek-v3", mla=mla, **common), 4) == 3 * 4 * (16 + 8 + 12) * 4


@pytest.mark.parametrize(
    ("rewards", "kept"),
    [([0, 0, 0], False), ([1.0, 1.0], False), ([0, 1], True), ([0.5], False), ([], False), ([0.1 + 0.2, 0.3], False), ([-1, 1], True)],
)
def test_keep_group(rewards: list[float], kept: bool) -> None:
    assert keep_group(rewards) is kept
