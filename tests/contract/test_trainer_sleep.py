"""A trainer that sleeps holds no memory on its device, and goes on bit by bit as one that never slept."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.contract import trainer_bench
from tests.contract.trainer_bench import FORMATS, TRAINER, batch, export_of, logprobs, make, parameters_of, save, step

from lprl_api.catalog.presets import preset_manifest
from lprl_api.derived.residency import TRAIN_PARTS, TrainPart
from lprl_api.rules.parse import parse_job
from lprl_operator.plan.memory import PARTS
from lprl_operator.plan.memory_trainer import torch_state
from lprl_operator.plan.parallel import stage_weights
from lprl_operator.plan.types import Groups
from lprl_workload.folder.config import read_shape
from lprl_workload.train.megatron.mapping import VOCAB_MULTIPLE

folders = trainer_bench.folders
CASES = [("qwen3", "bf16"), ("qwen3-moe", "int4-qat"), ("moonlight", "fp8")]


@pytest.fixture(params=CASES, ids=lambda c: "/".join(c))
def pair(request: pytest.FixtureRequest, folders: dict[str, Path]) -> tuple[Any, Any]:
    """Two trainers in the same state, their references loaded."""
    found = [make(folders[request.param[0]], FORMATS[request.param[1]]) for _ in range(2)]
    for actor in found:
        step(actor, batch(1))
        logprobs(actor, batch(1), 1.0, reference=True)
    return found[0], found[1]


def stored(actor: Any, part: TrainPart) -> list[torch.Tensor]:
    masters = actor.masters
    match part:
        case "weights":
            return [*parameters_of(actor), *(m.value for m in masters.items.values())]
        case "optimizer":
            return [tensor for m in masters.items.values() for tensor in (m.moment, m.second_moment, m.grad)]
        case "reference":
            return parameters_of(actor, reference=True)


def held(actor: Any, part: TrainPart) -> int:
    return sum({t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in stored(actor, part)}.values())


def test_each_part_is_freed_alone_and_comes_back_bit_by_bit(pair: tuple[Any, Any]) -> None:
    slept, other = pair
    for part in sorted(TRAIN_PARTS):
        before = {p: held(slept, p) for p in TRAIN_PARTS}
        assert min(before.values()) > 0
        slept.sleep(frozenset({part}))
        assert {p: held(slept, p) for p in TRAIN_PARTS} == before | {part: 0}
        slept.wake(frozenset({part}))
        assert {p: held(slept, p) for p in TRAIN_PARTS} == before
        for tensor, want in zip(stored(slept, part), stored(other, part), strict=True):
            assert torch.equal(tensor, want) or (part == "optimizer" and not tensor.any()), part  # gradients come back as zeros


def test_training_goes_on_as_if_it_had_not_slept(pair: tuple[Any, Any]) -> None:
    slept, other = pair
    for number in (2, 3):
        slept.sleep(frozenset({"optimizer", "reference"}))
        weights = export_of(slept)
        slept.sleep(TRAIN_PARTS)
        slept.wake(TRAIN_PARTS)
        assert all(torch.equal(tensor, weights[name]) for name, tensor in export_of(other).items())
        assert logprobs(slept, batch(number), 1.0, reference=True) == logprobs(other, batch(number), 1.0, reference=True)
        assert step(slept, batch(number)) == step(other, batch(number))


def test_a_checkpoint_is_made_of_what_sleeps(pair: tuple[Any, Any], tmp_path: Path) -> None:
    slept, other = pair
    slept.sleep(TRAIN_PARTS)
    slept.begin_save(tmp_path)
    slept.wake(TRAIN_PARTS)
    after = step(slept, batch(2))
    records = slept.finish_save(wait=True)
    (tmp_path / "other").mkdir()
    by_name = {record.path: record for record in save(other, tmp_path / "other")}
    weights = [name for name in by_name if name.endswith(".safetensors")]
    assert weights and all(record == by_name[record.path] for record in records if record.path in weights), "the same bytes"
    other.load(tmp_path, records)
    assert step(other, batch(2)) == after


@pytest.mark.parametrize(
    ("part", "call"),
    [
        ("weights", lambda actor: logprobs(actor, batch(1), 1.0)),
        ("weights", export_of),
        ("optimizer", lambda actor: step(actor, batch(1))),
        ("reference", lambda actor: logprobs(actor, batch(1), 1.0, reference=True)),
        ("optimizer", lambda actor: actor.load(Path("nowhere"))),
    ],
)
def test_what_sleeps_is_not_read(folders: dict[str, Path], part: TrainPart, call: Any) -> None:
    actor = make(folders["qwen3"], FORMATS["bf16"])
    logprobs(actor, batch(1), 1.0, reference=True)
    actor.sleep(frozenset({part}))
    with pytest.raises(RuntimeError, match=f"{part} sleep"):
        call(actor)


@pytest.mark.parametrize("case", CASES, ids=lambda c: "/".join(c))
def test_plans_count_what_a_trainer_holds(folders: dict[str, Path], case: tuple[str, str]) -> None:
    """On a CPU, part by part, but for norms of heads and router biases."""
    actor = make(folders[case[0]], FORMATS[case[1]])
    step(actor, batch(1))
    shape = read_shape(folders[case[0]])
    if TRAINER == "megatron":  # pads the vocabulary, which is nothing in a real model and much in this one
        shape = shape.model_copy(update={"vocab": -(-shape.vocab // VOCAB_MULTIPLE) * VOCAB_MULTIPLE})
    groups = Groups(
        tensor=1, pipeline=1, context=1, expert=1, expert_tensor=1, data_parallel=1, expert_data_parallel=1, stage_layers=(shape.layers,)
    )
    spec = parse_job(preset_manifest("qwen3-4b-fp8")).spec
    planned: dict[str, int] = {}
    for item in torch_state(spec, stage_weights(shape, groups, 0, FORMATS[case[1]]), groups, cpu=True):
        part = PARTS[item.cause][1]
        planned[part] = planned.get(part, 0) + item.bytes
    assert {part: held(actor, part) for part in planned} == pytest.approx(planned, rel=5e-3)  # type: ignore[arg-type]
