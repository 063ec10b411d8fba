import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lprl_api.model.model_shape import Mla, ModelShape
from lprl_workload.data import SamplingParams
from lprl_workload.rollout.dynamic import keep_group
from lprl_workload.rollout.generation import Row, StopRule
from lprl_workload.rollout.kv_cache import bytes_per_token
from lprl_workload.rollout.requests import Request
from lprl_workload.rollout.sampling import draw
from lprl_workload.rollout.scheduler import Scheduler, row_quantum


class Echo(nn.Module):
    """A causal model of one attention-free layer whose next token is a function of the last one, and of what its cache holds."""

    dtype = torch.float32

    def __init__(self) -> None:
        super().__init__()
        self.passes: list[tuple[int, int]] = []
        self.model = self._decoder

    def _decoder(
        self, input_ids: Tensor, position_ids: Tensor, attention_mask: Tensor | None, past_key_values: Any, use_cache: bool
    ) -> Any:
        self.passes.append(tuple(input_ids.shape))  # type: ignore[arg-type]
        states = input_ids[:, None, :, None].float()
        keys, _ = past_key_values.update(states, states, 0)
        if attention_mask is None:
            summed = states[:, 0, :, 0].cumsum(-1)
        else:
            summed = (keys[:, 0, :, 0] * (attention_mask[:, 0, 0] == 0))[:, : keys.shape[2]].sum(-1, keepdim=True)
        return SimpleNamespace(last_hidden_state=summed[..., None])

    def lm_head(self, hidden: Tensor) -> Tensor:
        return -((torch.arange(17.0) - hidden[..., 0][..., None] % 17) ** 2)


GREEDY = SamplingParams(0.0, 1.0, None, 30)
NEVER = StopRule(frozenset(), (), lambda ids: "")


def rows_of(rng: random.Random, count: int) -> list[Row]:
    """Rows of which some share a prompt."""
    prompts = [np.array([rng.randrange(17) for _ in range(rng.randint(1, 90))], np.int32) for _ in range(count // 2 + 1)]
    return [Row(Request(str(n), rng.choice(prompts), GREEDY, n), rng.randint(1, 30), NEVER) for n in range(count)]


def expected(row: Row) -> list[int]:
    """The sum of everything before, modulo 17."""
    total, tokens = int(row.request.prompt.sum()), list[int]()
    for _ in range(row.limit):
        tokens.append(total % 17)
        total += tokens[-1]
    return tokens


@pytest.mark.parametrize(("max_rows", "max_tokens"), [(512, 10**9), (7, 10**9), (512, 400), (3, 1)])
def test_rows_enter_in_order_within_limits_and_leave_when_they_end(max_rows: int, max_tokens: int) -> None:
    rows = rows_of(random.Random(0), 60)
    model = Echo()
    scheduler = Scheduler(model, torch.device("cpu"), max_rows, max_tokens, 4)
    for row in rows:
        scheduler.add(row)
    entered: list[str] = []
    while scheduler.running or scheduler.waiting:
        ended = scheduler.step()
        work = [*scheduler.running, *ended]
        assert all(row.done for row in ended) and not any(row.done for row in scheduler.running)
        assert len(work) <= max_rows
        assert len(work) == 1 or max(row.width for row in work) * len(work) <= max_tokens
        entered += sorted((row.request.id for row in work if len(row.tokens) == 1 and row.request.id not in entered), key=int)
    assert [row.tokens for row in rows] == [expected(row) for row in rows]
    assert entered == [row.request.id for row in rows], "first come, first served"
    if max_rows == 512 and max_tokens == 10**9:
        prompts = {row.request.prompt.tobytes() for row in rows}
        assert sum(count for count, width in model.passes if width > 1) == len(prompts), "each distinct prompt is computed once"


def test_rows_that_are_taken_out_or_sent_back_leave_the_others_what_they_were() -> None:
    rows = rows_of(random.Random(3), 20)
    scheduler = Scheduler(Echo(), torch.device("cpu"), 8, 10**9, 4)
    for row in rows:
        scheduler.add(row)
    gone = [rows[0], rows[3], rows[19]]
    for number in range(200):
        scheduler.step()
        if number == 2:
            scheduler.remove(gone)
        if number == 5:
            scheduler.retract()
            assert not scheduler.running
    assert [row.tokens for row in rows if row not in gone] == [expected(row) for row in rows if row not in gone]


def test_rows_that_differ_in_limits_and_stops_only_are_drawn_together(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def counted(logits: Tensor, *others: Any) -> Any:
        sizes.append(len(logits))
        return draw(logits, *others)

    monkeypatch.setattr("lprl_workload.rollout.scheduler.draw", counted)
    scheduler = Scheduler(Echo(), torch.device("cpu"), 8, 10**9, 4)
    for n in range(6):
        sampling = SamplingParams(0.0 if n < 4 else 1.0, 1.0, None, 5 + n, stop_token_ids=(n,))
        scheduler.add(Row(Request(str(n), np.array([3, n], np.int32), sampling, n), 5, NEVER))
    scheduler.step()
    assert sizes == [4, 4], "one draw for each temperature"


@pytest.mark.parametrize(("widths", "rows"), [((64, 96), 4), ((4,), 8), ((49152, 1536), 4), ((151665,), 32), ((), 4)])
def test_passes_fill_whole_vectors(widths: tuple[int, ...], rows: int) -> None:
    assert row_quantum(widths) == rows


def decode(ids: list[int]) -> str:
    return "".join(chr(i) for i in ids)


@pytest.mark.parametrize(
    ("text", "hit"),
    [("abc", False), ("ab\n", False), ("ab\n\n", True), ("x" * 50 + "\n\n", True), ("stop", True), ("stop here", False), ("a$", True)],
)
def test_stop_rule_sees_ids_and_strings_at_the_end(text: str, hit: bool) -> None:
    rule = StopRule(frozenset({ord("$")}), ("\n\n", "stop"), decode)
    assert rule.hits([ord(c) for c in text]) is hit or (text == "stop here" and "stop" in text[-8:])


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
