"""The TrainActor contract, run on every trainer that works on this machine."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests import forking
from tests.contract import trainer_bench
from tests.contract.trainer_bench import (
    FORMATS,
    batch,
    export_of,
    forward_weights,
    logprobs,
    make,
    paths_of,
    run_config,
    save,
    shape_of,
    step,
)

from lprl_api.model.checkpoint_tensors import CORRECTION
from lprl_api.model.formats import Bf16
from lprl_operator.places.local.ports import free_port
from lprl_workload.config import RankInfo
from lprl_workload.episode import TrainSample
from lprl_workload.hf.folder import read_folder
from lprl_workload.process.errors import NonFiniteError
from lprl_workload.quant.scheme import dequantize, module_of, quantize
from lprl_workload.quant.select import Selection
from lprl_workload.train.actor_torch import TorchTrainActor

folders, case = trainer_bench.folders, trainer_bench.case


def test_export_of_an_untrained_model_is_its_source(case: Any) -> None:
    actor, folder, _ = case
    exported = export_of(actor)
    assert list(exported) == sorted(exported)
    stored = dict(read_folder(folder))
    assert set(exported) == set(stored)
    for name, tensor in exported.items():
        assert tensor.dtype == stored[name].dtype
        assert torch.equal(tensor, stored[name]), name


def test_forward_weights_after_a_step_are_the_quantised_export(case: Any) -> None:
    """Bar 3: what the trainer computes with == dequantise(quantise(exported BF16 tensor)), so codes and scales are equal too."""
    actor, folder, fmt = case
    step(actor, batch(0))
    exported = export_of(actor)
    before = dict(read_folder(folder))
    selection = Selection(fmt, shape_of(folder))
    quantised = changed = 0
    for name, used in forward_weights(actor).items():
        tensor = exported[name]
        changed += not torch.equal(tensor, before[name])
        if name.endswith(CORRECTION):
            assert torch.equal(used, tensor)
        elif not isinstance(fmt, Bf16) and selection.selects(name, tuple(tensor.shape)):
            parts = quantize(name, tensor, fmt)
            assert torch.equal(used, dequantize(parts, module_of(name), fmt).float()), name
            quantised += 1
        else:
            assert torch.equal(used, tensor.float()), name
    assert changed > len(exported) // 2
    assert (quantised > 0) == (not isinstance(fmt, Bf16))


def test_training_raises_the_likelihood_of_good_samples(case: Any) -> None:
    actor, _, _ = case
    samples = batch(1)
    good = [n for n, s in enumerate(samples) if s.advantage[0] > 0]

    def likelihood() -> float:
        rows = logprobs(actor, samples, 1.0)
        return sum(sum(rows[n]) for n in good)

    before = likelihood()
    for _ in range(8):
        metrics = step(actor, samples)
        assert metrics["grad_norm"] > 0
    assert likelihood() > before + 5


def test_resume_is_bit_for_bit(case: Any, tmp_path: Path) -> None:
    actor, folder, fmt = case
    step(actor, batch(2))
    save(actor, tmp_path)
    random_now = torch.rand(4)
    expected = [step(actor, batch(n)) for n in (3, 4)]
    weights = export_of(actor)
    other = make(folder, fmt)
    other.load(tmp_path)
    assert other.optimizer_steps == 1
    assert torch.equal(torch.rand(4), random_now)
    assert [step(other, batch(n)) for n in (3, 4)] == expected
    for name, tensor in export_of(other).items():
        assert torch.equal(tensor, weights[name]), name
    assert not list(tmp_path.glob("*.pt")) and not list(tmp_path.glob("*.pkl"))


def test_equal_inputs_give_bit_equal_results_on_two_threads(folders: dict[str, Path]) -> None:
    torch.set_num_threads(2)
    try:
        runs = []
        for _ in range(2):
            actor = make(folders["qwen3-moe"], FORMATS["fp8"])
            runs.append([step(actor, batch(n, count=32)) for n in range(3)])
        assert runs[0] == runs[1]
    finally:
        torch.set_num_threads(1)


def test_micro_batch_size_and_recomputation_do_not_change_the_step(folders: dict[str, Path]) -> None:
    whole = make(folders["moonlight"], FORMATS["int4-qat"], trainer={"recompute": "none", "max_tokens_per_gpu": 4096})
    pieces = make(folders["moonlight"], FORMATS["int4-qat"], trainer={"recompute": "full", "max_tokens_per_gpu": 12})
    for n in range(2):
        a, b = step(whole, batch(n)), step(pieces, batch(n))
        for key, value in a.items():
            assert b[key] == pytest.approx(value, rel=2e-3, abs=1e-5), key


def test_logprobs_are_what_training_measures(folders: dict[str, Path]) -> None:
    actor = make(folders["qwen3"], FORMATS["fp8"])
    samples = batch(5)
    rows = logprobs(actor, samples, 1.0)
    assert [len(r) for r in rows] == [s.drawn_tokens for s in samples]
    exact = [replace(s, rollout_logprobs=np.array(r, np.float32)) for s, r in zip(samples, rows, strict=True)]
    metrics = step(actor, exact)
    assert metrics["logprob_diff"] < 1e-5 and metrics["k3"] < 1e-9
    assert metrics["clip_fraction"] == 0.0


def test_the_constant_of_dr_grpo_is_what_an_episode_can_draw_in_all_of_its_turns(folders: dict[str, Path]) -> None:
    losses = []
    for episode in ({}, {"type": "tools", "tools": [{"name": "t", "function": "m:f"}], "maxTurns": 4}):
        actor = make(folders["qwen3"], FORMATS["bf16"], algorithm={"steps": 9, "loss_aggregation": "constant"}, episode=episode)
        losses.append(step(actor, batch(5))["loss"])
    assert losses[0] != 0 and losses[1] == pytest.approx(losses[0] / 4)


def test_reference_stays_while_the_policy_moves(folders: dict[str, Path]) -> None:
    actor = make(folders["qwen3-moe"], FORMATS["bf16"])
    samples = batch(6)
    reference = logprobs(actor, samples, 1.0, reference=True)
    assert reference == logprobs(actor, samples, 1.0)
    step(actor, samples)
    assert logprobs(actor, samples, 1.0, reference=True) == reference
    assert logprobs(actor, samples, 1.0) != reference


def test_temperature_scales_logits(folders: dict[str, Path]) -> None:
    actor = make(folders["qwen3"], FORMATS["bf16"])
    samples = batch(7, count=2)
    cold, warm = logprobs(actor, samples, 0.25), logprobs(actor, samples, 1.0)
    assert cold != warm
    hot = logprobs(actor, samples, 1e6)
    vocab = shape_of(folders["qwen3"]).vocab
    assert hot[0][0] == pytest.approx(-torch.tensor(float(vocab)).log().item(), abs=1e-4)


def test_non_finite_step_is_refused_or_skipped(folders: dict[str, Path]) -> None:
    bad = [replace(s, advantage=np.full_like(s.advantage, np.nan)) for s in batch(8)]
    actor = make(folders["qwen3"], FORMATS["bf16"])
    with pytest.raises(NonFiniteError, match="optimizer step 0: loss is nan"):
        step(actor, bad)
    assert actor.optimizer_steps == 0
    lenient = make(folders["qwen3"], FORMATS["bf16"], algorithm={"steps": 10, "check_for_nan": False})
    before = export_of(lenient)
    assert step(lenient, bad)["skipped_steps"] == 1
    assert all(torch.equal(tensor, before[name]) for name, tensor in export_of(lenient).items())


def test_correction_switch(folders: dict[str, Path]) -> None:
    samples = [replace(s, rollout_logprobs=s.rollout_logprobs - 3) for s in batch(9)]
    actor = make(folders["qwen3"], FORMATS["bf16"], optimizer={"learning_rate": 1e-9})
    assert step(actor, samples)["tis_clip_fraction"] == 0
    actor.set_correction(True)
    assert step(actor, samples)["tis_clip_fraction"] > 0.5
    actor.set_correction(False)
    assert step(actor, samples)["tis_clip_fraction"] == 0


def worker(rank: int, folder: str, fmt: str, shard: bool, port: int, out: str, resume: str | None) -> None:
    torch.set_num_threads(1)
    config = run_config(Path(folder), FORMATS[fmt])
    config = config.model_copy(update={"ranks": config.ranks.model_copy(update={"trainer_ranks": 2, "data_parallel": 2})})
    actor = TorchTrainActor(config, paths_of(Path(folder)), RankInfo(rank, 2, "cpu", "127.0.0.1", port), shard=shard)
    if resume:
        actor.load(Path(resume))
    metrics = []
    for n in range(3):
        samples = batch(n)
        # Rank 1 gets nothing in the last step: it must still take part in every collective.
        samples = samples if n < 2 else samples[:1]
        metrics.append(step(actor, samples, rank))
    save(actor, Path(out))
    weights = export_of(actor)
    assert (rank == 0) == bool(weights)
    if rank == 0:
        torch.save({"metrics": metrics, "weights": weights}, Path(out) / "result.pt")
    torch.distributed.barrier()
    actor.close()
    # Everything is on disk. Left to the interpreter, gloo's threads abort its end now and then (torch 2.13, a busy machine).
    os._exit(0)


def two_ranks(folder: Path, fmt: str, shard: bool, out: Path, resume: Path | None = None) -> dict[str, Any]:
    out.mkdir()
    context, port = forking.context(forking.RANKS), free_port()
    resumed = str(resume) if resume else None
    ranks = [context.Process(target=worker, args=(r, str(folder), fmt, shard, port, str(out), resumed)) for r in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(timeout=240)
    assert [process.exitcode for process in ranks] == [0, 0]
    sizes = [path.stat().st_size for path in sorted(out.glob("trainer-*.safetensors"))]
    assert len(sizes) == 2 and min(sizes) > sum(sizes) / 4, "each rank wrote its share"
    result: dict[str, Any] = torch.load(out / "result.pt")
    return result


@pytest.mark.slow
@pytest.mark.parametrize("fmt", ["bf16", "fp8", "fp8-qat"])
def test_two_ranks_replicated_and_sharded_equal_one(folders: dict[str, Path], tmp_path: Path, fmt: str) -> None:
    folder = folders["qwen3-moe"]
    single = make(folder, FORMATS[fmt])
    alone = [step(single, batch(n) if n < 2 else batch(n)[:1]) for n in range(3)]
    replicated = two_ranks(folder, fmt, False, tmp_path / "dp")
    sharded = two_ranks(folder, fmt, True, tmp_path / "fsdp")
    for n, want in enumerate(alone):
        for other in (replicated, sharded):
            for key in ("loss", "grad_norm", "logprob_diff", "k3", "entropy"):
                assert other["metrics"][n][key] == pytest.approx(want[key], rel=2e-3, abs=1e-6), (n, key)
    save(single, tmp_path)
    # A sharded checkpoint goes on replicated, with equal losses, and the other way round.
    further = [step(single, batch(n) if n < 2 else batch(n)[:1]) for n in range(3)]
    crossed = two_ranks(folder, fmt, False, tmp_path / "crossed", resume=tmp_path / "fsdp")
    back = two_ranks(folder, fmt, True, tmp_path / "back", resume=tmp_path / "dp")
    for n, want in enumerate(further):
        for other in (crossed, back):
            assert other["metrics"][n]["loss"] == pytest.approx(want["loss"], rel=5e-3, abs=1e-5)


def test_tokens_of_the_world_are_read_and_never_trained_on(folders: dict[str, Path]) -> None:
    """A hole in the mask: the tokens after it have the same log-probabilities, and those in it no gradient at all."""
    actor = make(folders["qwen3"], FORMATS["bf16"], optimizer={"learning_rate": 1e-9})
    (whole,) = batch(12, count=1, lengths=(6,))
    hole = np.flatnonzero(whole.mask)[2:4]
    keep = ~np.isin(np.flatnonzero(whole.mask), hole)
    mask = whole.mask.copy()
    mask[hole] = False
    loud = np.where(keep, 0.0, 1.0).astype(np.float32)  # only what lies in the hole would be learned
    with_hole = TrainSample(whole.ids, mask, whole.rollout_logprobs[keep], loud[keep])
    rows, all_rows = logprobs(actor, [with_hole], 1.0), logprobs(actor, [replace(whole, advantage=loud)], 1.0)
    assert rows[0] == pytest.approx([value for value, kept in zip(all_rows[0], keep, strict=True) if kept], abs=1e-5)
    assert step(actor, [replace(whole, advantage=loud)])["grad_norm"] > 0.01
    metrics = step(actor, [with_hole])
    assert metrics["grad_norm"] == 0.0 and metrics["loss"] == 0.0
