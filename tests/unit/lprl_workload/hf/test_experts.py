"""The grouped experts against transformers' own loop: values and gradients."""

from typing import Any

import torch

from lprl_workload.hf.experts import EXPERTS, register_experts


def run(model: Any, implementation: str, ids: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model.config._experts_implementation_internal = implementation
    model.zero_grad()
    out = model(input_ids=ids).logits
    out.square().mean().backward()
    return out.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def test_equals_the_eager_loop_forward_and_backward(sources: Any) -> None:
    register_experts()
    for family in ("qwen3-moe", "moonlight"):
        model = sources[family].oracle()
        ids = torch.randint(0, 60, (2, 9), generator=torch.Generator().manual_seed(3))
        want, want_grads = run(model, "eager", ids)
        got, got_grads = run(model, EXPERTS, ids)
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
        assert got_grads.keys() == want_grads.keys()
        for name, grad in want_grads.items():
            torch.testing.assert_close(got_grads[name], grad, rtol=1e-4, atol=1e-5, msg=name)


def test_a_token_does_not_depend_on_its_batch_order(sources: Any) -> None:
    register_experts()
    model = sources["qwen3-moe"].oracle()
    model.config._experts_implementation_internal = EXPERTS
    ids = torch.randint(0, 60, (4, 9), generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        whole, swapped = model(input_ids=ids).logits, model(input_ids=ids.flip(0)).logits.flip(0)
    torch.testing.assert_close(whole, swapped, rtol=1e-5, atol=1e-5)
