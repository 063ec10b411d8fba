"""The arithmetic of SGLang's CPU platform, without SGLang: bit for bit the torch engine's, expert for expert."""

from types import SimpleNamespace

import pytest
import torch

from lprl_api.model.formats.base import WHOLE_ROW
from lprl_sglang_cpu.arithmetic import experts, product
from lprl_workload.hf.activations import fake_quantize_activations
from lprl_workload.hf.experts import DOWN_GROUP, GATE_UP_GROUP, experts_forward

TOKENS, K, HIDDEN, WIDTH, EXPERTS = 9, 2, 32, 48, 4


@pytest.mark.parametrize("group", [None, WHOLE_ROW, 16])
def test_experts_are_those_of_the_torch_engine(group: int | None) -> None:
    draw = torch.Generator().manual_seed(5)
    gate_up = torch.randn(EXPERTS, 2 * WIDTH, HIDDEN, generator=draw)
    down = torch.randn(EXPERTS, HIDDEN, WIDTH, generator=draw)
    x, shares = torch.randn(TOKENS, HIDDEN, generator=draw), torch.rand(TOKENS, K, generator=draw)
    ids = torch.stack([torch.randperm(EXPERTS, generator=draw)[:K] for _ in range(TOKENS)])
    module = SimpleNamespace(gate_up_proj=gate_up, down_proj=down, act_fn=torch.nn.functional.silu)
    setattr(module, GATE_UP_GROUP, group)
    setattr(module, DOWN_GROUP, group)
    want = experts_forward(module, x, ids, shares)  # type: ignore[arg-type]
    torch.testing.assert_close(experts(x, ids, shares, lambda e: (gate_up[e], down[e]), group), want, rtol=0, atol=0)


def test_another_rank_s_experts_add_nothing() -> None:
    x, weights = torch.ones(3, HIDDEN), (torch.ones(2 * WIDTH, HIDDEN), torch.ones(HIDDEN, WIDTH))
    ids = torch.tensor([[0, -1], [-1, -1], [-1, 0]])
    out = experts(x, ids, torch.ones(3, 2), lambda e: weights, None)
    assert torch.equal(out[1], torch.zeros(HIDDEN)) and torch.equal(out[0], out[2]) and out[0].abs().sum() > 0


def test_a_product_adds_up_in_float32_and_answers_in_the_layer_s_dtype() -> None:
    draw = torch.Generator().manual_seed(6)
    x, weight = torch.randn(5, 64, generator=draw).bfloat16(), torch.randn(7, 64, generator=draw)
    bias = torch.randn(7, generator=draw).bfloat16()
    seen = fake_quantize_activations(x, 32).float()
    assert torch.equal(product(x, weight, bias, 32), (seen @ weight.t()).bfloat16() + bias)
    assert not torch.equal(product(x, weight, None, 32), product(x, weight, None, None))
