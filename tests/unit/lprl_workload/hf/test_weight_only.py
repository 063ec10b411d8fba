"""fp8-qat and weight-only FP8: trainer and engine compute with the same weights and leave activations alone, so they agree."""

from pathlib import Path
from typing import Any

import pytest
import torch

from lprl_api.model.formats import Fp8Block, Fp8Channel, Fp8Tensor, WeightFormat
from lprl_api.model.formats.chosen import rollout_format, training_format
from lprl_api.spec.precision import Precision
from lprl_workload.hf.arithmetic import emulate_activations, selected_slots
from lprl_workload.hf.folder import read_folder
from lprl_workload.hf.model import build_model
from lprl_workload.hf.served import ServedModel
from lprl_workload.hf.slots import per_expert, weight_slots
from lprl_workload.quant.scheme import fake_quantize, quantize

IDS = torch.randint(0, 60, (3, 17), generator=torch.Generator().manual_seed(1))
STRATEGIES: dict[str, WeightFormat] = {
    "block": Fp8Block(activations="none"),
    "channel": Fp8Channel(activations="none"),
    "tensor": Fp8Tensor(activations="none"),
}


def trained(source: Any, fmt: WeightFormat) -> Any:
    """Return the trainer's forward: masters fake-quantised, activations as the format says."""
    model = build_model(source.folder, source.shape, "cpu")
    slots = weight_slots(model, source.shape)
    selected = selected_slots(slots, fmt, source.shape, source.folder)
    emulate_activations(model, slots, selected, fmt)
    by_name = {slot.name: slot for slot in slots}
    for name, tensor in (item for stored in read_folder(source.folder) for item in per_expert(*stored)):
        by_name[name].write(fake_quantize(tensor, fmt) if name in selected else tensor)
    return model


def served(source: Any, fmt: WeightFormat) -> Any:
    """Return an engine's model, fed with codes and scales."""
    engine = ServedModel(source.folder, fmt, source.shape, "cpu")
    selected = selected_slots(weight_slots(engine.model, source.shape), fmt, source.shape, source.folder)
    for name, tensor in (item for stored in read_folder(source.folder) for item in per_expert(*stored)):
        engine.load((quantize(name, tensor, fmt) if name in selected else {name: tensor}).items())
    assert not engine.missing()
    return engine.model


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_trainer_and_engine_are_bit_equal(source: Any, strategy: str) -> None:
    precision = Precision.model_validate({"training": "fp8-qat", "rollout": "fp8", "fp8": {"strategy": strategy, "activations": "none"}})
    assert training_format(precision, False) == rollout_format(precision, False) == STRATEGIES[strategy]
    assert torch.equal(logits(trained(source, STRATEGIES[strategy])), logits(served(source, STRATEGIES[strategy])))


def test_dynamic_activations_are_what_tells_them_apart(source: Any) -> None:
    precision = Precision.model_validate({"training": "fp8-qat", "rollout": "fp8"})
    assert training_format(precision, False) == Fp8Block(activations="none")
    assert rollout_format(precision, False) == Fp8Block(activations="dynamic")
    weight_only, dynamic = logits(served(source, Fp8Block(activations="none"))), logits(served(source, Fp8Block()))
    assert not torch.equal(weight_only, dynamic)
    assert torch.equal(logits(trained(source, Fp8Block(activations="none"))), weight_only)


def test_training_fp8_always_computes_with_fp8_activations(tmp_path: Path) -> None:
    precision = Precision.model_validate({"training": "fp8", "rollout": "bf16", "fp8": {"activations": "none"}})
    assert training_format(precision, False) == Fp8Block(activations="dynamic")
