"""What only a GPU can show: the quantizer's bytes, training and serving on CUDA, FSDP2 over NCCL. Run by `make test-gpu`."""

import json
import multiprocessing
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lprl_api.model.formats import Bf16, Fp8Block, Fp8Channel, Fp8Tensor, Int4Group, WeightFormat
from lprl_api.model.hf_config import shape_from_config
from lprl_api.wire.runconfig import RunConfig
from lprl_fixtures.architectures import Architecture
from lprl_fixtures.generate import ModelOptions, generate_model
from lprl_fixtures.pushes import whole_weights
from lprl_fixtures.runs import run_config
from lprl_workload.config import RankInfo, ResolvedPaths
from lprl_workload.data import NamedTensor
from lprl_workload.episode import TrainSample, token_ids
from lprl_workload.hf.served import ServedModel
from lprl_workload.quant.scheme import dequantize, module_of, quantize
from lprl_workload.quant.select import Selection
from lprl_workload.sync.manifest import ServedAs
from lprl_workload.sync.serve import Notes, quantise_batch
from lprl_workload.train.actor_torch import TorchTrainActor

pytestmark = pytest.mark.gpu
FORMATS: list[WeightFormat] = [Fp8Block(), Fp8Block(scale_format="ue8m0"), Fp8Channel(), Fp8Tensor(), Int4Group(group_size=32), Int4Group()]
MODES = {"bf16": ("bf16", "bf16"), "fp8": ("fp8", "fp8"), "int4-qat": ("int4-qat", "int4")}
ARCHITECTURES: tuple[Architecture, ...] = ("qwen3", "qwen3-moe", "deepseek-v3")
PROMPT = 9


def weights() -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    normal = torch.randn(300, 384, generator=g)
    return {
        "normal": normal * 0.02,
        "extreme exponents": torch.ldexp(normal, torch.randint(-120, 120, normal.shape, generator=g)),
        "denormals and zeros": torch.where(normal > 0, normal * 1e-40, torch.zeros(())),
        "constant": torch.full((128, 256), 448.0),
    }


@pytest.mark.parametrize("fmt", FORMATS, ids=lambda f: f"{f.kind}-{getattr(f, 'scale_format', getattr(f, 'group_size', ''))}")
@pytest.mark.parametrize("case", weights())
def test_cuda_bytes_are_the_cpu_bytes(fmt: WeightFormat, case: str) -> None:
    weight = weights()[case].to(torch.bfloat16)
    here, there = quantize("x.weight", weight, fmt), quantize("x.weight", weight.cuda(), fmt)
    for name, tensor in here.items():
        assert torch.equal(tensor.view(torch.uint8), there[name].cpu().view(torch.uint8)), name
    assert torch.equal(dequantize(here, "x", fmt), dequantize(there, "x", fmt).cpu())


def setup(root: Path, architecture: Architecture, mode: str, ranks: int = 1) -> tuple[RunConfig, ResolvedPaths]:
    folder = root / "all" / "model"
    if not folder.exists():
        generate_model(folder, ModelOptions(architecture, "demo"))
    training, rollout = MODES[mode]
    precision = {"training": training, "rollout": rollout, "int4": {"group_size": 64, "scope": "all-linear"}}
    rank = {"accelerator": "H100-80GB", "slots_per_node": ranks, "trainer_ranks": ranks, "data_parallel": ranks}
    run = run_config(root, {"precision": precision, "ranks": rank, "algorithm": {"steps": 10}})
    return run, ResolvedPaths(folder, folder, folder, root / "run", folder, None, None)


def samples(count: int = 8) -> list[TrainSample]:
    g = torch.Generator().manual_seed(1)

    def sample(n: int) -> TrainSample:
        ids = token_ids(torch.randint(3, 30, (PROMPT + 4,), generator=g).numpy())
        return TrainSample(ids, np.arange(PROMPT + 4) >= PROMPT, np.full(4, -3.0, np.float32), np.full(4, (-1.0) ** n, np.float32))

    return [sample(n) for n in range(count)]


def train(actor: TorchTrainActor, part: list[TrainSample], total: int, steps: int = 3) -> list[float]:
    return [actor.train([part], total, 4 * total)["grad_norm"] for _ in range(steps)]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("mode", MODES)
def test_training_and_serving_on_cuda(tmp_path: Path, architecture: Architecture, mode: str) -> None:
    run, paths = setup(tmp_path, architecture, mode)
    actor = TorchTrainActor(run, paths, RankInfo(0, 1, "cuda:0"))
    batch = samples()
    (before,) = actor.logprobs([batch], 1.0)
    norms = train(actor, batch, len(batch))
    (after,) = actor.logprobs([batch], 1.0)
    assert all(0 < n < 1e4 for n in norms)
    gain = [sum(a) - sum(b) for a, b in zip(after, before, strict=True)]
    assert sum(g for n, g in enumerate(gain) if n % 2 == 0) > sum(g for n, g in enumerate(gain) if n % 2)
    shape = shape_from_config(json.loads((paths.model / "config.json").read_text()))
    served = ServedModel(paths.model, run.rollout_format, shape, "cuda:0")
    exported = [NamedTensor(name, tensor.clone()) for name, tensor in export_of(actor).items()]
    selection = Selection(run.rollout_format, shape)
    entries = {entry.name: entry for entry in actor.source().manifest().entries}
    whole = [(entries[n.name], n.tensor) for n in exported]
    served.load((n.name, n.tensor) for n in quantise_batch(whole, ServedAs(run.rollout_format, selection), Notes()))
    assert served.missing() == ()
    for item in exported:
        if selection.selects(item.name, tuple(item.tensor.shape)):
            fmt, module = run.rollout_format, module_of(item.name)
            here, there = (quantize(item.name, t, fmt) for t in (item.tensor.cpu(), item.tensor.cuda()))
            assert torch.equal(dequantize(here, module, fmt), dequantize(there, module, fmt).cpu())
    ids = torch.from_numpy(batch[0].ids[None].astype(np.int64)).cuda()
    with torch.no_grad():
        logits = served.model(input_ids=ids).logits.float().log_softmax(-1)[0]
    own = logits[PROMPT - 1 : -1].gather(-1, ids[0, PROMPT:, None])[:, 0]
    assert (own.cpu() - torch.from_numpy(after[0])).abs().mean() < 0.05
    actor.close()


def export_of(actor: TorchTrainActor) -> dict[str, torch.Tensor]:
    return whole_weights(actor.source(), actor.peers(), ServedAs(Bf16(), Selection(Bf16(), actor._run.shape)))


def worker(rank: int, root: str, mode: str, port: int, out: str) -> None:
    torch.cuda.set_device(rank)
    run, paths = setup(Path(root), "qwen3-moe", mode, ranks=2)
    actor = TorchTrainActor(run, paths, RankInfo(rank, 2, f"cuda:{rank}", "127.0.0.1", port))
    batch = samples()
    norms = train(actor, batch[rank::2], len(batch))
    names = [(name, float(tensor.float().abs().sum())) for name, tensor in export_of(actor).items()]
    peak = torch.cuda.max_memory_allocated()
    Path(out, f"{rank}.json").write_text(json.dumps({"norms": norms, "sums": names, "peak": peak}))
    actor.close()


@pytest.mark.parametrize("mode", MODES)
def test_fsdp2_over_nccl_equals_one_gpu(tmp_path: Path, mode: str) -> None:
    if torch.cuda.device_count() < 2:
        pytest.fail(f"{torch.cuda.device_count()} GPUs here, this test needs 2: deselect it with -k 'not nccl'")
    run, paths = setup(tmp_path, "qwen3-moe", mode)
    single = TorchTrainActor(run, paths, RankInfo(0, 1, "cuda:0"))
    wanted = train(single, samples(), 8)
    sums: dict[str, Any] = {name: float(tensor.float().abs().sum()) for name, tensor in export_of(single).items()}
    single.close()
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    ranks = [context.Process(target=worker, args=(r, str(tmp_path), mode, port, str(tmp_path))) for r in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(240)
        assert process.exitcode == 0
    found = json.loads((tmp_path / "0.json").read_text())
    assert found["norms"] == pytest.approx(wanted, rel=0.05)
    assert {n for n, _ in found["sums"]} == set(sums)
    for name, value in found["sums"]:
        assert value == pytest.approx(sums[name], rel=0.02), name
