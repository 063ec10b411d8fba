"""The shared input of FP8 layers is quantised once, in training and in inference mode."""

import torch

from lprl_workload.hf.activations import InputQuantizer
from lprl_workload.quant.fp8_block import activation_fake_quantize


def test_inference_tensors_are_quantised_once() -> None:
    # An inference tensor has no version counter: reading it raised, and FP8 serving died at its first token.
    quantizer, layer = InputQuantizer(128), torch.nn.Linear(8, 8)
    with torch.inference_mode():
        x = torch.randn(3, 8)
        (first,), (second,) = quantizer(layer, (x,)), quantizer(layer, (x,))
        assert first is second
        assert torch.equal(first, activation_fake_quantize(x))


def test_a_changed_input_is_quantised_again() -> None:
    quantizer, layer = InputQuantizer(128), torch.nn.Linear(8, 8)
    x = torch.randn(3, 8)
    (first,) = quantizer(layer, (x,))
    x.mul_(2)
    (second,) = quantizer(layer, (x,))
    assert not torch.equal(first, second)
