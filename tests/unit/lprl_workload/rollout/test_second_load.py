"""A second load that is not a first one is told, whatever the engine forgets; the torch engine forgets nothing."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from lprl_api.model.formats import Bf16, Fp8Block, Int4Group, WeightFormat
from lprl_api.model.model_shape import ModelShape
from lprl_api.spec.precision import Scope
from lprl_fixtures.generate import ModelOptions, generate_model
from lprl_fixtures.shape import model_shape
from lprl_workload.data import Bucket, NamedTensor
from lprl_workload.hf.folder import read_folder
from lprl_workload.quant.scheme import quantize
from lprl_workload.quant.select import Selection
from lprl_workload.rollout.engine_torch import TorchEngine
from lprl_workload.rollout.second_load import others, second_load, served_tensors
from lprl_workload.sync.buckets import make_bucket, unpack

FORMATS: dict[str, WeightFormat] = {"bf16": Bf16(), "fp8": Fp8Block(), "int4": Int4Group(group_size=32, scope=Scope.ALL_LINEAR)}


class Forgets(TorchEngine):
    """Keeps the scales of its first load."""

    def load_bucket(self, bucket: Bucket) -> None:
        """Load, but say of scales what was said at first."""
        kept = self.__dict__.setdefault("kept", {})
        items = []
        for item in unpack(bucket):
            kept.setdefault(item.name, item.tensor.clone())
            items.append(NamedTensor(item.name, kept[item.name]) if "scale" in item.name and self.weight_version > 0 else item)
        super().load_bucket(bucket)
        self._model().load([(item.name, item.tensor) for item in unpack(make_bucket(items))])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("model")
    generate_model(made, ModelOptions("qwen3", "tiny", seed=3))
    return made


def shape_of(folder: Path) -> ModelShape:
    return model_shape(json.loads((folder / "config.json").read_text()))


def served(folder: Path, fmt: WeightFormat, factor: float) -> Iterator[NamedTensor]:
    selection = None if isinstance(fmt, Bf16) else Selection(fmt, shape_of(folder))
    for name, tensor in sorted(read_folder(folder)):
        value = (tensor.float() * factor).to(tensor.dtype)
        taken = selection is not None and selection.selects(name, tuple(tensor.shape))
        parts = quantize(name, value, fmt) if taken else {name: value}
        yield from (NamedTensor(part, each) for part, each in parts.items())


@pytest.mark.parametrize("kind", FORMATS)
def test_a_second_load_of_the_torch_engine_is_a_first_one(folder: Path, kind: str) -> None:
    fmt = FORMATS[kind]
    engine = TorchEngine(folder, fmt, shape_of(folder))
    problem, first = second_load(engine, shape_of(folder).vocab, lambda: served(folder, fmt, 5), lambda: served(folder, fmt, 3))
    assert problem == "" and engine.weight_version == 4 and len(first.sums) > 10
    engine.close()


def test_an_engine_that_keeps_an_old_scale_is_told_by_the_tensor(folder: Path) -> None:
    fmt = FORMATS["fp8"]
    engine = Forgets(folder, fmt, shape_of(folder))
    problem, _ = second_load(engine, shape_of(folder).vocab, lambda: served(folder, fmt, 3), lambda: served(folder, fmt, 5), pushes=4)
    assert problem.startswith("push 4 of weights that were loaded before") and "proj.weight" in problem
    engine.close()


def test_other_weights_are_of_the_same_kind_and_others(folder: Path) -> None:
    shape = shape_of(folder)
    one, two = {i.name: i.tensor for i in served_tensors(folder, shape)}, {i.name: i.tensor for i in others(folder, shape)}
    assert {(n, t.dtype, t.shape) for n, t in one.items()} == {(n, t.dtype, t.shape) for n, t in two.items()}
    assert not torch.equal(one["model.embed_tokens.weight"], two["model.embed_tokens.weight"])
