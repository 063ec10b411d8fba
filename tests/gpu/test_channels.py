"""Weights between processes on GPUs: CUDA handles on one device, NCCL broadcast between two."""

import multiprocessing
import queue
from typing import Any

import pytest
import torch

from lprl_workload.buckets import Digest, pack, unpack
from lprl_workload.data import Bucket, NamedTensor
from lprl_workload.process.errors import WeightMismatchError
from lprl_workload.sync.channel_broadcast import BroadcastChannel, BroadcastGroup, Meeting, receive, serve_store
from lprl_workload.sync.cuda_ipc import open_handle, share

pytestmark = pytest.mark.gpu
BUCKET_BYTES = 1 << 20


class Collecting:
    """A receiver that keeps the digest of what arrives, and copies out of buckets as engines do."""

    def __init__(self) -> None:
        self.digest = Digest()
        self.kept: list[torch.Tensor] = []

    def begin_update(self, version: int) -> None:
        self.digest = Digest()

    def load_bucket(self, bucket: Bucket) -> None:
        self.digest.add_bucket(bucket)
        self.kept += [item.tensor.clone() for item in unpack(bucket)]

    def end_update(self, version: int, digest: str) -> None:
        if self.digest.hexdigest() != digest:
            raise WeightMismatchError(f"version {version}: digest differs")


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
    receiver = Collecting()
    receiver.begin_update(0)
    while (handle := handles.get(timeout=120)) is not None:
        receiver.load_bucket(open_handle(handle))
        torch.cuda.synchronize()
        answers.put("taken")
    answers.put(receiver.digest.hexdigest())


def test_handles_carry_buckets_to_another_process() -> None:
    context = multiprocessing.get_context("spawn")
    handles, answers = context.Queue(), context.Queue()
    child = context.Process(target=open_handles, args=(handles, answers))
    child.start()
    digest = Digest()
    for bucket in pack(tensors("cuda:0"), BUCKET_BYTES):
        digest.add_bucket(bucket)
        handles.put(share(bucket))
        try:
            assert answers.get(timeout=120) == "taken"
        except queue.Empty:
            child.kill()
            raise
    handles.put(None)
    assert answers.get(timeout=60) == digest.hexdigest()
    child.join(60)
    assert child.exitcode == 0


def receive_all(meeting: Meeting, versions: int, answers: Any) -> None:
    torch.cuda.set_device(1)
    group = BroadcastGroup(meeting, 1, torch.device("cuda:1"))
    receiver = Collecting()
    for version in range(versions):
        receive(group, receiver, version)
        answers.put(receiver.digest.hexdigest())


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
    channel = BroadcastChannel(group, BUCKET_BYTES, lambda version: lambda: None)
    for version in range(2):
        report = channel.push(tensors("cuda:0"), version)
        assert answers.get(timeout=120) == report.digest
    child.join(60)
    assert child.exitcode == 0
