"""A step of the Megatron trainer on one GPU, in each training format, beside a plain loop of megatron-core with the same model.

Needs megatron-core and TransformerEngine. The model is so many layers of Qwen3-8B's width with random weights; micro-batches are whole
sequences packed to so many tokens. The plain loop is Megatron's own: TransformerEngine's attention, DistributedDataParallel, its
distributed optimizer, cross entropy of every token. Each runs in a process of its own; OUT/megatron.json holds what is printed.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("NVTE_FP8_BLOCK_SCALING_FP32_SCALES", "1")  # read when TransformerEngine is imported

import numpy as np
import torch
from benchmarks.gpu.shapes import SHAPES

from lprl_api.model.formats import Bf16, Fp8Block, Int4Group, WeightFormat
from lprl_api.model.model_shape import ModelShape
from lprl_api.spec.algorithm import Optimizer
from lprl_api.spec.precision import Scope
from lprl_api.spec.topology import TrainerLayout
from lprl_fixtures.shape import model_shape
from lprl_workload.config import RankInfo
from lprl_workload.episode import TrainSample, token_ids

FORMATS: dict[str, WeightFormat] = {
    "bf16": Bf16(),
    "fp8": Fp8Block(),
    "fp8-qat": Fp8Block(activations="none"),
    "int4-qat": Int4Group(group_size=128, scope=Scope.ALL_LINEAR),
}
PLAIN = ("plain bf16", "plain fp8")
VOCAB, RATE = 32768, 1e-5


def config_of(layers: int) -> dict[str, Any]:
    return SHAPES["qwen3-8b"] | {"num_hidden_layers": layers, "vocab_size": VOCAB, "max_position_embeddings": 8192}


def timed(step: Callable[[], object], count: int) -> list[float]:
    """Return the seconds of each of `count` steps after two that are not counted."""
    found = []
    for number in range(count + 2):
        torch.cuda.synchronize()
        began = time.perf_counter()
        step()
        torch.cuda.synchronize()
        found += [time.perf_counter() - began] if number > 1 else []
    return found


def samples(args: argparse.Namespace) -> list[list[TrainSample]]:
    """Micro-batches of sequences whose second half is drawn."""
    draw, each = np.random.default_rng(0), args.tokens // args.length
    mask = np.arange(args.length) >= args.length // 2
    drawn = int(mask.sum())
    advantage, logprobs = np.ones(drawn, np.float32), np.full(drawn, -10.0, np.float32)
    return [
        [TrainSample(token_ids(draw.integers(3, VOCAB, args.length).tolist()), mask, logprobs, advantage, logprobs) for _ in range(each)]
        for _ in range(args.micro_batches)
    ]


def ours(name: str, args: argparse.Namespace, folder: Path, shape: ModelShape) -> dict[str, Any]:
    """Time the trainer's own functions, as MegatronTrainActor.train calls them; nothing is read from a folder but config.json."""
    from lprl_workload.train.megatron.batches import micro_batches
    from lprl_workload.train.megatron.masters import StagedMasters
    from lprl_workload.train.megatron.model import StagedModel
    from lprl_workload.train.megatron.ranks import Ranks
    from lprl_workload.train.megatron.stages import Stages
    from lprl_workload.train.megatron.step import reduce_and_norm
    from lprl_workload.train.mesh import TrainMesh

    ranks = Ranks(RankInfo(0, 1, args.device), TrainMesh())
    layout = TrainerLayout(recompute="none", max_tokens_per_gpu=args.tokens)
    model = StagedModel(folder, shape, Stages((shape.layers,)), layout, ranks, filled=False, fmt=FORMATS[name])
    masters = StagedMasters(model, ranks, FORMATS[name], Optimizer(learning_rate=RATE), folder)
    for value in masters.values.values():
        value.normal_(0, 0.02) if value.ndim > 1 else value.fill_(1)
    masters.refresh()
    batches = micro_batches(samples(args), ranks.device, model.token_multiple, 1)

    def step() -> None:
        masters.zero_grad()
        model.run(batches, 1.0, lambda logp, entropy, number: (-logp.sum() / (args.tokens * len(batches)), None))
        masters.step(RATE, reduce_and_norm(model, ranks, masters))

    found: dict[str, Any] = {"seconds": timed(step, args.steps)}
    if args.device != "cpu":
        found["peak"] = torch.cuda.max_memory_allocated()
        found |= host_trip(masters)
    return found


def host_trip(masters: Any) -> dict[str, float]:
    """Return GB/s of the optimizer's way to the host and back: the second one, its place on the host is there."""
    nbytes = sum(flat.moment.nbytes * 2 for flat in masters._flats)
    for _ in range(2):
        torch.cuda.synchronize()
        began = time.perf_counter()
        masters.sleep("optimizer")
        torch.cuda.synchronize()
        left = time.perf_counter()
        masters.wake("optimizer")
        torch.cuda.synchronize()
        back = time.perf_counter()
    return {"GB": nbytes / 1e9, "to host GB/s": nbytes / 1e9 / (left - began), "back GB/s": nbytes / 1e9 / (back - left)}


def plain(name: str, args: argparse.Namespace, shape: ModelShape) -> dict[str, Any]:
    """Time megatron-core's own loop."""
    from megatron.core.pipeline_parallel import get_forward_backward_func

    device, each = torch.device(args.device), args.tokens // args.length
    wrapped, optimizer = built(FORMATS[name.removeprefix("plain ")], args, shape, device)
    tokens = torch.randint(3, VOCAB, (args.micro_batches, each, args.length + 1), device=device)
    positions = torch.arange(args.length, device=device).expand(each, -1)

    def forward(batches: Any, chunk: Any) -> Any:
        batch = next(batches)
        output = chunk(batch[:, :-1].contiguous(), positions, None, labels=batch[:, 1:].contiguous())
        count = torch.tensor(output.numel(), dtype=torch.int, device=device)
        return output, lambda out: (out.float().sum(), count, {})

    def step() -> None:
        wrapped.zero_grad_buffer()
        optimizer.zero_grad()
        get_forward_backward_func()(
            forward_step_func=forward, data_iterator=iter(tokens), model=[wrapped], num_microbatches=args.micro_batches,
            seq_length=args.length, micro_batch_size=each, forward_only=False,
        )  # fmt: skip
        optimizer.step()

    return {"seconds": timed(step, args.steps), "peak": torch.cuda.max_memory_allocated()}


def built(fmt: WeightFormat, args: argparse.Namespace, shape: ModelShape, device: torch.device) -> tuple[Any, Any]:
    """Return megatron-core's model with random weights, wrapped for one data-parallel rank, and its optimizer."""
    import torch.distributed as dist
    from megatron.core import parallel_state
    from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig, finalize_model_grads
    from megatron.core.models.gpt import GPTModel
    from megatron.core.models.gpt.gpt_layer_specs import get_gpt_decoder_block_spec
    from megatron.core.optimizer import OptimizerConfig, get_megatron_optimizer
    from megatron.core.tensor_parallel.random import model_parallel_cuda_manual_seed
    from megatron.core.transformer.module import Float16Module

    from lprl_workload.train.megatron.configuration import transformer_config
    from lprl_workload.train.megatron.stages import Stages
    from lprl_workload.train.mesh import TrainMesh

    torch.cuda.set_device(device)
    dist.init_process_group("nccl", store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
    parallel_state.initialize_model_parallel()
    model_parallel_cuda_manual_seed(1)
    layout = TrainerLayout(recompute="none")
    config = transformer_config(shape, config_of(shape.layers), TrainMesh(), Stages((shape.layers,)), layout, device, fmt)
    config.calculate_per_token_loss = True
    spec = get_gpt_decoder_block_spec(config, use_transformer_engine=True)
    model = GPTModel(config, spec, VOCAB, args.length, position_embedding_type="rope", share_embeddings_and_output_weights=False)
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.02) if parameter.ndim > 1 else parameter.data.fill_(1)
    settings = DistributedDataParallelConfig(use_distributed_optimizer=True, grad_reduce_in_fp32=True)
    wrapped = DistributedDataParallel(config, settings, Float16Module(config, model.cuda()))
    dtypes = {"bf16": True, "params_dtype": torch.bfloat16}
    optimizer = get_megatron_optimizer(OptimizerConfig(optimizer="adam", lr=RATE, use_distributed_optimizer=True, **dtypes), [wrapped])
    config.finalize_model_grads_func, config.grad_scale_func = finalize_model_grads, optimizer.scale_loss
    return wrapped, optimizer


def measured(name: str, args: argparse.Namespace, out: Any) -> None:
    with tempfile.TemporaryDirectory() as place:
        config = config_of(args.layers)
        (Path(place) / "config.json").write_text(json.dumps(config))
        shape = model_shape(config)
        try:
            out.put(plain(name, args, shape) if name in PLAIN else ours(name, args, Path(place), shape))
        except Exception as error:  # told by the parent, which goes on with the others
            out.put({"error": repr(error)[:1500]})
            raise


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--cases", nargs="+", choices=[*PLAIN, *FORMATS], default=["plain bf16", "bf16", "fp8", "plain fp8", "int4-qat", "fp8-qat"]
    )
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=16384, help="of a micro-batch")
    parser.add_argument("--length", type=int, default=4096, help="of a sequence")
    parser.add_argument("--micro-batches", type=int, default=2)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--out", type=Path, default=Path("bench-out") / "megatron")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    context, results = multiprocessing.get_context("spawn"), dict[str, Any]()
    for name in args.cases:
        answers = context.Queue()
        child = context.Process(target=measured, args=(name, args, answers))
        child.start()
        results[name] = found = answers.get(timeout=300)
        child.join()
        if "error" in found:
            print(f"{name}: {found['error']}", flush=True)
            continue
        median = statistics.median(found["seconds"])
        rest = " ".join(f"{key} {value:.1f}" for key, value in found.items() if key not in ("seconds", "peak"))
        peak = found.get("peak", 0) / 2**30
        told = f"{median * 1e3:.0f} ms a step ({min(found['seconds']) * 1e3:.0f} to {max(found['seconds']) * 1e3:.0f}), peak {peak:.1f} GiB"
        print(f"{name}: {told}; {args.tokens * args.micro_batches / median:.0f} tokens/s; {rest}", flush=True)
        (args.out / "megatron.json").write_text(json.dumps(results, indent=1))
    return 1 if any("error" in found for found in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
