"""SGLang on two GPUs: tensor and expert parallel engines serve our arithmetic, and weights come over NCCL from a trainer on the other GPU.

Needs SGLang and two GPUs.
"""

import contextlib
import multiprocessing
import queue
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.gpu.shapes import format_of, served, write_shape
from tests.gpu.test_sglang import BOUND, FRACTION, SPREAD, Site

from lprl_api.model.formats import Bf16
from lprl_fixtures.pushes import StandInSource, one_owner
from lprl_workload.hf.served import ServedModel
from lprl_workload.quant.select import Selection
from lprl_workload.rollout.sglang.arguments import ServerOptions
from lprl_workload.rollout.sglang.engine import SglangEngine
from lprl_workload.sync.manifest import ServedAs
from lprl_workload.sync.peers import Alone
from lprl_workload.sync.routes import EngineLayout, Target, route
from lprl_workload.sync.session import Session, push
from lprl_workload.sync.transport_broadcast import BroadcastGroup, BroadcastTransport, Meeting, receive, serve_store

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(900),
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs"),
]
CASES = [("small", "bf16", 1), ("small", "fp8", 1), ("small-moe", "bf16", 1), ("small-moe", "fp8", 2)]
"""Model, format and expert-parallel groups; two tensor-parallel ranks all."""
PUSHES, WAIT_S, BUCKET_BYTES = 3, 600.0, 16 << 20


def engine_of(folder: Path, name: str, kind: str, device: str, server: ServerOptions) -> tuple[SglangEngine, Any]:
    config, shape = write_shape(folder, name)
    fmt = format_of(kind, shape)
    told: dict[str, Any] = {"context_length": 256, "max_concurrency": 16, "memory_fraction": FRACTION, "server": server}
    return SglangEngine(folder, fmt, shape, device, **told), config


@pytest.fixture(scope="module", params=CASES, ids=["-".join(map(str, case)) for case in CASES])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    name, kind, expert = request.param
    free = torch.cuda.mem_get_info(0)[0]
    folder = tmp_path_factory.mktemp("served")
    engine, config = engine_of(folder, name, kind, "cuda:0", ServerOptions(tensor=2, expert=expert, graph_sizes=(4, 16)))
    _, shape = write_shape(folder, name)
    yield Site(engine, folder, config, shape, format_of(kind, shape), name, kind, free)
    engine.close()


def test_two_ranks_serve_our_arithmetic_and_a_second_load_is_a_first_one(site: Site) -> None:
    one, two, rows = site.tensors(1), site.tensors(2), site.texts()
    found = []
    for tensors in (one, two, one):
        site.push(tensors)
        found.append((site.engine._control.checksums(), site.scores(rows)))
    difference = (found[0][1] - site.expected(one, rows)).abs().mean()
    print(f"\n{site.name} {site.kind}, two ranks: mean difference {difference:.5f}")
    assert difference < BOUND[site.name, site.kind]
    assert found[2][0] == found[0][0] != found[1][0] and (found[0][1] - found[1][1]).abs().max() > 0.5


def engine_end(folder: Path, kind: str, meeting: Meeting, row: list[int], answers: Any) -> None:
    torch.cuda.set_device(1)
    engine, _ = engine_of(folder, "small", kind, "cuda:1", ServerOptions(graph_sizes=(4, 16), sleeps=False))
    answers.put("up")
    try:
        group = BroadcastGroup(meeting, 1, torch.device("cuda:1"))
        for version in range(1, PUSHES + 1):
            receive([group], engine, version, version == 1, Target(0))
            answers.put((engine.weight_version, engine.probe(row)))
    finally:
        engine.close()


def heard(child: Any, answers: Any) -> Any:
    """Return the next thing that a living child says: one that ended says nothing for ever."""
    until = time.monotonic() + WAIT_S
    while time.monotonic() < until:
        with contextlib.suppress(queue.Empty):
            return answers.get(timeout=1.0)
        assert child.is_alive(), f"the engine's process ended with {child.exitcode}"
    raise TimeoutError(f"the engine's process said nothing in {WAIT_S:g} s")


@pytest.mark.parametrize("kind", ["bf16", "fp8"])
def test_weights_come_over_nccl_from_a_trainer_on_the_other_gpu(tmp_path: Path, kind: str) -> None:
    config, shape = write_shape(tmp_path, "small")
    fmt, row = format_of(kind, shape), [(7 * n) % shape.vocab for n in range(64)]
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    store = serve_store(WAIT_S, "127.0.0.1")
    meeting = Meeting("127.0.0.1", store.port, 2, WAIT_S, "g")
    child = context.Process(target=engine_end, args=(tmp_path, kind, meeting, row, answers))
    child.start()
    assert heard(child, answers) == "up"
    torch.cuda.set_device(0)
    group = BroadcastGroup(meeting, 0, torch.device("cuda:0"), store)
    for version in range(1, PUSHES + 1):
        weights = {item.name: item.tensor for item in served(config, Bf16(), shape, "cuda:0", version, SPREAD)}
        manifest = one_owner(weights)
        served_as = ServedAs(fmt, Selection(fmt, shape))
        transport = BroadcastTransport(group, lambda version, strong: lambda broken: None)
        routes = route(manifest, [EngineLayout(0)], BUCKET_BYTES, served_as)
        push(Session(routes, transport, Alone()), StandInSource(weights, manifest, 0), version, version == 1)
        served_version, found = heard(child, answers)
        model = ServedModel(tmp_path, fmt, shape, "cuda:0")
        model.load((item.name, item.tensor) for item in served(config, fmt, shape, "cuda:0", version, SPREAD))
        assert served_version == version
        assert (torch.tensor(found) - torch.tensor(model.score(row))).abs().mean() < BOUND["small", kind]
    child.join(60)
    assert child.exitcode == 0
