"""What `verify --prompts` says, held against whole models of transformers and float64 formulas."""

import gc
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lprl_api.model.formats import Fp8Block, Fp8Channel, Fp8Tensor, Int4Group, WeightFormat
from lprl_api.spec.precision import Scope
from lprl_workload.compare.compare import Wanted, compare_folders
from lprl_workload.compare.passes import Pass, run_pass
from lprl_workload.compare.sensitivity import part_mixes
from lprl_workload.compare.sides import Side
from lprl_workload.compare.streams import make_batches
from lprl_workload.compare.texts import Reading, Text, read_texts
from lprl_workload.convert.weights import ModelFolder
from lprl_workload.rollout.tokens import load_tokenizer

sys.path.insert(0, str(Path(__file__).parent))
from plain_figures import load, plain_figures, plain_model, quantise_inputs

ALL = Scope.ALL_LINEAR
CASES = [
    pytest.param("qwen3", Fp8Channel(), 0, id="dense-fp8-channel-with-activations"),
    pytest.param("llama", Fp8Block(), 128, id="dense-fp8-block-with-activations"),
    pytest.param("qwen2", Fp8Tensor(activations="none"), None, id="dense-with-biases-fp8-tensor"),
    pytest.param("qwen3-moe", Fp8Block(activations="none"), None, id="moe-fp8-block"),
    pytest.param("qwen3-moe", Int4Group(group_size=32), None, id="moe-int4-experts"),
    pytest.param("deepseek-v3", Int4Group(group_size=32, scope=ALL), None, id="mla-int4"),
]


def read(source: Path, texts: Path) -> list[Text]:
    return read_texts(texts, Reading(), load_tokenizer(source), 128)[0]


@pytest.mark.parametrize(("architecture", "fmt", "group"), CASES)
def test_figures_are_those_of_whole_models_in_float64(
    models: Any, converted: Any, texts: Path, tmp_path: Path, architecture: str, fmt: WeightFormat, group: int | None
) -> None:
    source = models(architecture)
    folder = converted(source, fmt)
    other = plain_model(folder, source, tmp_path / "plain")
    if group is not None:
        quantise_inputs(other, {name.removesuffix(".weight") for name in Side(folder, "cpu").quantized}, group)
    wanted = plain_figures(load(source), other, [(list(text.ids), text.first) for text in read(source, texts)])
    found = compare_folders(folder, source, texts, Wanted(sensitivity_texts=0)).distance
    assert wanted["kl_mean"] > 1e-3, "nothing to compare"
    assert found.model_dump() == pytest.approx(wanted, abs=1e-5)


def test_answers_count_where_there_are_some_and_whole_texts_elsewhere(models: Any, texts: Path) -> None:
    source = models("qwen3")
    tokenizer = load_tokenizer(source)
    answered, whole, plain, short = read(source, texts)
    assert tokenizer.decode(answered.ids[answered.first :]) == f"the answer 12{tokenizer.eos_token}"
    assert short.counted == 2 and short.answered
    assert whole.first == plain.first == 1 and not plain.answered
    assert "plain question 7" in tokenizer.decode(plain.ids)


def test_a_part_left_out_is_the_plain_model_with_that_part_of_the_source(models: Any, converted: Any, texts: Path, tmp_path: Path) -> None:
    source = models("qwen3", 3)
    folder = converted(source, Int4Group(group_size=32, scope=ALL))
    found = compare_folders(folder, source, texts, Wanted(sensitivity_texts=4)).sensitivity
    assert found is not None and [(p.layer, p.part) for p in found.parts[:4]] == [(0, "layer"), (0, "attention"), (0, "mlp"), (1, "layer")]
    ids = [(list(text.ids), text.first) for text in read(source, texts)]
    for part in (found.parts[0], found.parts[4], found.parts[8]):
        original, other = load(source), plain_model(folder, source, tmp_path / part.modules)
        for name in {"layer": ("self_attn", "mlp"), "attention": ("self_attn",), "mlp": ("mlp",)}[part.part]:
            setattr(other.model.layers[part.layer], name, getattr(original.model.layers[part.layer], name))
        wanted = plain_figures(load(source), other, ids)["kl_mean"]
        assert part.kl_mean == pytest.approx(wanted, abs=1e-5)
        assert part.recovered == pytest.approx(1 - wanted / found.kl_mean, abs=1e-3)


def test_memory_is_two_layers_whatever_the_model_has(models: Any, converted: Any, texts: Path) -> None:
    source = models("qwen3", 6)
    one, other = Side(source, "cpu"), Side(converted(source, Fp8Channel()), "cpu")
    layer = sum(p.numel() for p in one.model.model.layers[0].parameters())
    most: dict[int, int] = {}

    def held() -> int:
        return sum(p.numel() for p in gc.get_objects() if type(p) is torch.nn.Parameter and p.device.type != "meta")

    def measure(mixes: int) -> Callable[[int, int], None]:
        def on_step(done: int, total: int) -> None:
            most[mixes] = max(most.get(mixes, 0), held())

        return on_step

    gc.collect()
    gc.freeze()  # what there is by now is looked at no more: a process of many tests has millions of objects
    assert held() == 0
    batches = make_batches(read(source, texts), 16)
    run_pass(Pass(one, other, batches, [frozenset()]), measure(0))
    mixes = part_mixes(other)
    run_pass(Pass(one, other, batches, [frozenset(), *mixes]), measure(len(mixes)))
    assert len(mixes) == 18
    assert most == {0: layer, 18: 2 * layer}


def test_hidden_states_in_a_file_change_nothing(models: Any, converted: Any, texts: Path) -> None:
    source = models("qwen3-moe")
    one, other = Side(source, "cpu"), Side(converted(source, Fp8Block()), "cpu")
    mixes = [frozenset[tuple[int, str]](), *part_mixes(other)]
    batches = make_batches(read(source, texts), 24)
    assert len(batches) > 1
    inside, outside = (run_pass(Pass(one, other, batches, mixes, memory_bytes=n)) for n in (1 << 30, 0))
    assert [t.distance() for t in inside] == [t.distance() for t in outside]


def test_weights_are_dequantised_where_layers_are_computed(models: Any, converted: Any) -> None:
    stored = ModelFolder(converted(models("qwen3"), Fp8Block())).weight("model.layers.0.mlp.down_proj.weight")
    assert stored.quantized and stored.values().device.type == "cpu"
    # Nothing can be read from this device: what is there was computed there.
    there = stored.values("meta")
    assert there.device.type == "meta" and there.shape == stored.values().shape
