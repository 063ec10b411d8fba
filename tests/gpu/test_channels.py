"""Weights between processes on GPUs: CUDA handles on one device, NCCL broadcast between two."""

import multiprocessing
import queue
from typing import Any

import pytest
import torch

from lprl_api.model.formats import Bf16
from lprl_api.model.model_shape import ModelShape
from lprl_fixtures.pushes import Keeper, StandInSource, one_owner
from lprl_workload.data import NamedTensor
from lprl_workload.quant.select import Selection
from lprl_workload.sync.buckets import pack
from lprl_workload.sync.checks import Arrived
from lprl_workload.sync.checksum import checksum
from lprl_workload.sync.cuda_ipc import open_handle, share
from lprl_workload.sync.manifest import ServedAs
from lprl_workload.sync.peers import Alone
from lprl_workload.sync.routes import EngineLayout, Target, route
from lprl_workload.sync.session import Session, push
from lprl_workload.sync.transport_broadcast import BroadcastGroup, BroadcastTransport, Meeting, receive, serve_store

pytestmark = pytest.mark.gpu
BUCKET_BYTES = 1 << 20
SHAPE = ModelShape(
    architecture="Qwen3ForCausalLM", family="qwen3", layers=1, hidden=128, heads=2, kv_heads=1, head_dim=64, ffn=192, vocab=50,
    tied_embeddings=False,
)  # fmt: skip


def tensors(device: str) -> list[NamedTensor]:
    g = torch.Generator().manual_seed(0)
    wide = torch.randn(700, 512, generator=g)
    return [
        NamedTensor("a", wide.bfloat16().to(device)),
        NamedTensor("b", wide.to(torch.float8_e4m3fn).to(device)),
        NamedTensor("c", torch.arange(9, dtype=torch.int32, device=device)),
        NamedTensor("d", torch.tensor(3, dtype=torch.int64, device=device)),
    ]


def open_handles(handles: Any, answers: Any) -> None:
    arrived = Arrived(strong=True)
    while (handle := handles.get(timeout=120)) is not None:
        arrived.add(open_handle(handle))
        torch.cuda.synchronize()
        answers.put("taken")
    answers.put({name: int(value) for name, value in arrived.sums.items()})


def test_handles_carry_buckets_to_another_process() -> None:
    context = multiprocessing.get_context("spawn")
    handles, answers = context.Queue(), context.Queue()
    child = context.Process(target=open_handles, args=(handles, answers))
    child.start()
    for bucket in pack(tensors("cuda:0"), BUCKET_BYTES):
        handles.put(share(bucket))
        try:
            assert answers.get(timeout=120) == "taken"
        except queue.Empty:
            child.kill()
            raise
    handles.put(None)
    assert answers.get(timeout=60) == {item.name: int(checksum(item.tensor)) for item in tensors("cpu")}
    child.join(60)
    assert child.exitcode == 0


def receive_all(meeting: Meeting, versions: int, answers: Any) -> None:
    torch.cuda.set_device(1)
    group = BroadcastGroup(meeting, 1, torch.device("cuda:1"))
    keeper = Keeper()
    for version in range(versions):
        receive([group], keeper, version, True, Target(0))
        assert keeper.served is not None
        answers.put({name: int(checksum(tensor)) for name, tensor in keeper.served.items()})


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_nccl_broadcast_between_two_gpus() -> None:
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    store = serve_store(120.0, "127.0.0.1")
    meeting = Meeting("127.0.0.1", store.port, 2, 120.0, "g")
    child = context.Process(target=receive_all, args=(meeting, 2, answers))
    child.start()
    torch.cuda.set_device(0)
    group = BroadcastGroup(meeting, 0, torch.device("cuda:0"), store)
    weights = {item.name: item.tensor for item in tensors("cuda:0")}
    manifest = one_owner(weights)
    routes = route(manifest, [EngineLayout(0)], BUCKET_BYTES, ServedAs(Bf16(), Selection(Bf16(), SHAPE)))
    for version in range(2):
        transport = BroadcastTransport(group, lambda version, strong: lambda broken: None)
        push(Session(routes, transport, Alone()), StandInSource(weights, manifest, 0), version, True)
        assert answers.get(timeout=120) == {item.name: int(checksum(item.tensor)) for item in tensors("cpu")}
    child.join(60)
    assert child.exitcode == 0
