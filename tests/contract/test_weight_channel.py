"""The WeightChannel contract, run on every transport that works on this machine, with real engines at the other end."""

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from tests.contract.rollout_bench import drawn

from lprl_api.model.formats import Bf16, Fp8Block, Int4Group, WeightFormat
from lprl_api.model.hf_config import shape_from_config
from lprl_api.spec.precision import Scope
from lprl_fixtures.generate import ModelOptions, generate_model
from lprl_workload.buckets import Digest
from lprl_workload.data import Bucket, GenerationRequest, NamedTensor, SamplingParams
from lprl_workload.hf.folder import read_folder
from lprl_workload.process.errors import WeightMismatchError
from lprl_workload.quant.select import Selection
from lprl_workload.rollout.engine_torch import TorchEngine
from lprl_workload.sync.channel import WeightChannel, push_weights
from lprl_workload.sync.channel_broadcast import BroadcastChannel, BroadcastGroup, Meeting, receive, serve_store
from lprl_workload.sync.channel_disk import DiskChannel, receive_from, version_folder
from lprl_workload.sync.channel_local import LocalChannel
from lprl_workload.sync.serve import ErrorSum, served_tensors

BUCKET_BYTES = 1 << 15
GREEDY = SamplingParams(0.0, 1.0, None, 4)
REQUESTS = [GenerationRequest((5, 6, 7), 1), GenerationRequest((9, 8), 2)]
FORMATS: list[WeightFormat] = [Bf16(), Fp8Block(), Int4Group(group_size=32, scope=Scope.ALL_LINEAR)]


class Probe:
    """An engine that notes bucket sizes on the way, and can be told to damage or lose one."""

    def __init__(self, engine: TorchEngine) -> None:
        self.engine = engine
        self.sizes: list[tuple[int, int]] = []
        self.fault: Callable[[Bucket], Bucket | None] | None = None

    def begin_update(self, version: int) -> None:
        self.engine.begin_update(version)

    def load_bucket(self, bucket: Bucket) -> None:
        self.sizes.append((bucket.data.numel(), len(bucket.entries)))
        fault, self.fault = self.fault, None
        given = fault(bucket) if fault else bucket
        if given is not None:
            self.engine.load_bucket(given)

    def end_update(self, version: int, digest: str) -> None:
        self.engine.end_update(version, digest)


class Wired:
    """A channel of one transport with two engines at its other end."""

    def __init__(self, transport: str, folder: Path, fmt: WeightFormat, tmp_path: Path) -> None:
        shape = shape_from_config(json.loads((folder / "config.json").read_text()))
        self.fmt, self.selection, self.folder = fmt, Selection(fmt, shape), folder
        self.probes = [Probe(TorchEngine(folder, fmt, shape)) for _ in range(2)]
        self.engines = [probe.engine for probe in self.probes]
        self.pool = ThreadPoolExecutor(4)
        self.channel: WeightChannel = getattr(self, f"_{transport}")(tmp_path)

    def _local(self, tmp_path: Path) -> WeightChannel:
        return LocalChannel(self.probes, BUCKET_BYTES)

    def _broadcast(self, tmp_path: Path) -> WeightChannel:
        store = serve_store(30.0, "127.0.0.1")
        meeting = Meeting("127.0.0.1", store.port, 3, 30.0, "g1")
        joins = [self.pool.submit(BroadcastGroup, meeting, rank, torch.device("cpu")) for rank in (1, 2)]
        sender = BroadcastGroup(meeting, 0, torch.device("cpu"), store)
        groups = [join.result() for join in joins]
        return BroadcastChannel(
            sender,
            BUCKET_BYTES,
            lambda v: self._confirm([self.pool.submit(receive, g, p, v) for g, p in zip(groups, self.probes, strict=True)]),
        )

    def _disk(self, tmp_path: Path) -> WeightChannel:
        root = tmp_path / "sync"
        return DiskChannel(root, BUCKET_BYTES, lambda v: self._confirm([self.pool.submit(receive_from, root, p, v) for p in self.probes]))

    @staticmethod
    def _confirm(futures: list["Future[None]"]) -> Callable[[], None]:
        def confirm() -> None:
            errors = [future.exception(timeout=60) for future in futures]
            for error in errors:
                if error is not None:
                    raise error

        return confirm

    def weights(self, shift: float = 0.0) -> Iterator[NamedTensor]:
        for name, tensor in sorted(read_folder(self.folder)):
            yield NamedTensor(name, (tensor.float() + shift).bfloat16() if name.endswith("proj.weight") else tensor)

    def push(self, version: int, shift: float = 0.0) -> float:
        return push_weights(self.channel, self.weights(shift), self.fmt, self.selection, version).relative_rms_error

    def answers(self) -> list[list[tuple[int, ...]]]:
        return [[tuple(c.response_ids.tolist()) for c in drawn(engine, REQUESTS, GREEDY)] for engine in self.engines]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    found = tmp_path_factory.mktemp("model")
    generate_model(found, ModelOptions("qwen3", "tiny"))
    return found


@pytest.fixture(params=["local", "broadcast", "disk"])
def wire(request: pytest.FixtureRequest, folder: Path, tmp_path: Path) -> Iterator[Callable[[WeightFormat], Wired]]:
    made: list[Wired] = []

    def make(fmt: WeightFormat) -> Wired:
        made.append(Wired(request.param, folder, fmt, tmp_path))
        return made[-1]

    yield make
    for wired in made:
        wired.pool.shutdown(wait=True, cancel_futures=True)


@pytest.mark.parametrize("fmt", FORMATS, ids=lambda f: f.kind)
def test_every_engine_serves_exactly_what_was_sent(wire: Callable[[WeightFormat], Wired], fmt: WeightFormat) -> None:
    wired = wire(fmt)
    digest, error = Digest(), ErrorSum()
    tensors = list(served_tensors(wired.weights(), fmt, wired.selection, error))
    for item in tensors:
        digest.add(item.name, item.tensor)
    report = push_weights(wired.channel, wired.weights(), fmt, wired.selection, 0)
    assert (report.version, report.tensors, report.digest) == (0, len(tensors), digest.hexdigest())
    assert report.relative_rms_error == error.relative_rms
    assert report.nbytes >= sum(item.tensor.numel() * item.tensor.element_size() for item in tensors)
    assert [engine.weight_version for engine in wired.engines] == [0, 0]
    assert wired.answers()[0] == wired.answers()[1]


def test_a_new_version_changes_the_answers_and_the_versions_of_samples(wire: Callable[[WeightFormat], Wired]) -> None:
    wired = wire(Int4Group(group_size=32, scope=Scope.ALL_LINEAR))
    wired.push(0)
    before = wired.answers()
    wired.push(3, shift=0.05)
    assert wired.answers() != before
    found = drawn(wired.engines[1], REQUESTS, GREEDY)
    assert {span.version for c in found for span in c.versions} == {3}


def test_buckets_stay_within_the_bound(wire: Callable[[WeightFormat], Wired]) -> None:
    wired = wire(Bf16())
    wired.push(0)
    for probe in wired.probes:
        assert len(probe.sizes) > 3
        assert all(size <= BUCKET_BYTES or tensors == 1 for size, tensors in probe.sizes)


def test_versions_must_grow(wire: Callable[[WeightFormat], Wired]) -> None:
    wired = wire(Bf16())
    wired.push(2)
    with pytest.raises(WeightMismatchError, match="version 2 is being served"):
        wired.push(2)
    assert [engine.weight_version for engine in wired.engines] == [2, 2]


def flipped(bucket: Bucket) -> Bucket:
    data = bucket.data.clone()
    data[0] ^= 1
    return Bucket(bucket.entries, data)


@pytest.mark.parametrize("fault", [pytest.param(flipped, id="one-bit-flipped"), pytest.param(lambda _: None, id="a-bucket-lost")])
def test_a_damaged_push_is_refused_until_a_whole_one_succeeds(
    wire: Callable[[WeightFormat], Wired], fault: Callable[[Bucket], Bucket | None]
) -> None:
    wired = wire(Int4Group(group_size=32, scope=Scope.ALL_LINEAR))
    wired.push(0)
    wired.probes[1].fault = fault
    with pytest.raises(WeightMismatchError):
        wired.push(1)
    with pytest.raises((WeightMismatchError, RuntimeError)):
        drawn(wired.engines[1], REQUESTS, GREEDY)
    wired.push(2)
    assert [engine.weight_version for engine in wired.engines] == [2, 2]
    assert wired.answers()[0] == wired.answers()[1]


def test_the_sender_never_holds_the_whole_model(wire: Callable[[WeightFormat], Wired]) -> None:
    """Tensors are produced one at a time and dropped: at most a bucket's worth (and the next tensor) is alive."""
    wired = wire(Bf16())
    alive: set[int] = set()
    peak, largest = 0, 0
    lock = threading.Lock()
    sizes: dict[int, int] = {}

    def gone(key: int) -> None:
        with lock:
            alive.discard(key)

    def source() -> Iterable[NamedTensor]:
        import weakref

        nonlocal peak, largest
        for number, item in enumerate(wired.weights()):
            tensor = item.tensor.clone()
            sizes[number] = tensor.numel() * tensor.element_size()
            largest = max(largest, sizes[number])
            weakref.finalize(tensor, gone, number)
            with lock:
                alive.add(number)
                peak = max(peak, sum(sizes[n] for n in alive))
            yield NamedTensor(item.name, tensor)
            del tensor

    wired.channel.push(source(), 0)
    assert peak <= max(BUCKET_BYTES, largest) + 2 * largest < sum(sizes.values())


def test_disk_keeps_one_version_and_refuses_a_damaged_one(folder: Path, tmp_path: Path) -> None:
    wired = Wired("disk", folder, Bf16(), tmp_path)
    wired.push(0)
    wired.push(1)
    root = tmp_path / "sync"
    assert [p.name for p in root.iterdir()] == ["v00000001"]
    version_folder(root, 1).rename(version_folder(root, 5))
    with pytest.raises(WeightMismatchError, match="manifest says version 1"):
        receive_from(root, wired.engines[0], 5)
    with pytest.raises(WeightMismatchError, match="no readable weights of version 7"):
        receive_from(root, wired.engines[0], 7)
