"""The output head's logits are float32 whatever the weights are, with the gradient of the plain product."""

import torch
from torch import nn

from lprl_workload.hf.head import Float32Head, use_float32_head
from lprl_workload.hf.model import build_model


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(50, 16, dtype=torch.bfloat16)
        self.lm_head = nn.Linear(16, 50, bias=False, dtype=torch.bfloat16)
        self.lm_head.weight = self.embedding.weight


def test_logits_of_bf16_weights_are_not_rounded_to_bf16() -> None:
    model = Model()
    hidden = torch.randn(3, 5, 16, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)
    rounded = model.lm_head(hidden)
    use_float32_head(model)
    logits = model.lm_head(hidden)
    exact = hidden.double() @ model.lm_head.weight.double().t()
    assert logits.dtype == torch.float32 and rounded.dtype == torch.bfloat16
    torch.testing.assert_close(logits.double(), exact, rtol=1e-6, atol=1e-6)
    assert (rounded.double() - exact).abs().max() > 100 * (logits.double() - exact).abs().max()


def test_a_tied_head_stays_tied_and_gets_its_gradient() -> None:
    model = Model()
    use_float32_head(model)
    assert model.lm_head.weight is model.embedding.weight and isinstance(model.lm_head, Float32Head)
    hidden = torch.randn(4, 16, dtype=torch.bfloat16, requires_grad=True)
    model.lm_head(hidden).square().sum().backward()
    weight = model.lm_head.weight
    grad = 2 * (hidden.float() @ weight.float().t())
    torch.testing.assert_close(weight.grad.float(), grad.t() @ hidden.float(), rtol=2e-2, atol=2e-2)
    torch.testing.assert_close(hidden.grad.float(), grad @ weight.float(), rtol=2e-2, atol=2e-2)


def test_every_model_here_has_it(source) -> None:
    assert isinstance(build_model(source.folder, source.shape, "cpu").lm_head, Float32Head)
