"""What the planner counts as quantised is what the workload quantises, for every shape with a table of names, format and exclusion."""

import pytest
from tests.unit.lprl_api.layouts.published import Published, published

from lprl_api.model.checkpoint_tensors import checkpoint_tensors, tensor_of
from lprl_api.model.formats import Bf16, Fp8Block, Int4Group, WeightFormat
from lprl_api.model.layouts.planned import planned_shape
from lprl_api.model.shapes import SHAPES
from lprl_api.model.weight import LINEAR_KINDS
from lprl_api.model.weights import all_weights, layer_weights, selects
from lprl_api.spec.precision import Scope
from lprl_workload.quant.rule import is_expert, is_linear
from lprl_workload.quant.select import Selection

EXCLUDE = ("*.self_attn.*", "model.layers.0.*", "*.mlp.down_proj", "*.shared_experts.*", "*.kv_b_proj", "*.experts.*")
SMALL = {"layers": 3}
"""Layers beyond the first dense and the first routed ones are alike."""


def formats() -> list[WeightFormat]:
    """Every kind, scope and one exclusion each."""
    kinds: list[WeightFormat] = [Bf16(), Fp8Block()]
    kinds += [Int4Group(scope=scope, group_size=64, exclude_modules=()) for scope in Scope]
    for pattern in EXCLUDE:
        kinds += [Fp8Block(exclude_modules=(pattern,)), Int4Group(scope=Scope.ALL_LINEAR, exclude_modules=(pattern,))]
    return kinds


@pytest.mark.parametrize("name", [name for name, shape in SHAPES.items() if shape.layout is None])
def test_planner_and_workload_select_the_same_modules(name: str) -> None:
    moe = SHAPES[name].moe
    changes = {**SMALL, "moe": moe.model_copy(update={"experts": 2}) if moe else None}
    shape = SHAPES[name].model_copy(update=changes)
    tensors = checkpoint_tensors(shape)
    for fmt in formats():
        if isinstance(fmt, Int4Group) and fmt.scope is Scope.ROUTED_EXPERTS and shape.moe is None:
            continue
        selection = Selection.of(fmt, shape, tensors)
        for module, weight in all_weights(shape):
            tensor, _ = tensor_of(module.replace("experts.*", "experts.1"), weight)
            assert tensor in tensors, tensor
            assert selects(fmt, module, weight) == selection.takes(tensor), (fmt, tensor)


@pytest.mark.parametrize("one", [one for one in published() if one.parameters is not None], ids=lambda one: one.name)
def test_planner_and_rule_select_the_same_modules_of_models_without_a_table(one: Published) -> None:
    shape = planned_shape(one.config)
    experts = shape.moe.experts if shape.moe else 0
    for layer in range(shape.layers if shape.layout else 0):
        for weight in layer_weights(shape, layer):
            module = f"model.layers.{layer}.{weight.module.replace('*', '0')}"
            if weight.cols > 1 and not module.endswith("position_bias"):  # a table of the class, and no linear layer
                by_rule = is_expert(f"{module}.weight") or is_linear(module, weight.rows, weight.cols, experts)
                assert (weight.kind in LINEAR_KINDS) == by_rule, (one.name, weight)
