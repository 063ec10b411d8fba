"""Pushes into a model by our loader as it runs inside a server; the server around it is `Here`: HTTP and processes left out.

tests/backends does the same with real servers.
"""

import base64
import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lprl_workload.data import NamedTensor
from lprl_workload.io.dtypes import DTYPE_NAMES
from lprl_workload.process.errors import WeightMismatchError
from lprl_workload.rollout.sglang.control import Control, ControlError
from lprl_workload.rollout.sglang.inside import LOADER, serve
from lprl_workload.rollout.sglang.releases import Release
from lprl_workload.rollout.sglang.weights import Weights
from lprl_workload.sync.buckets import pack
from lprl_workload.sync.checks import Check
from lprl_workload.sync.checksum import checksum

SESSIONS, NONE = Release((0, 5, 23), True, True, True), Release((0, 5, 17), False, False, False)


class Packs:
    """A scheme that has to undo what it did before weights can be loaded again."""

    def __init__(self) -> None:
        self.packed, self.calls = True, list[str]()

    def restore_weights_before_loading(self, module: nn.Module) -> None:
        self.packed = False
        self.calls.append("restore")

    def process_weights_after_loading(self, module: nn.Module) -> None:
        self.packed = True
        self.calls.append("process")


class Model(nn.Module):
    """Loads as SGLang's classes do: fuses two halves within a call, skips what it does not know."""

    def __init__(self) -> None:
        super().__init__()
        self.fused = nn.Parameter(torch.zeros(5, 4), requires_grad=False)
        self.norm = nn.Parameter(torch.zeros(4), requires_grad=False)
        self.k_scale = nn.Parameter(torch.ones(()), requires_grad=False)  # made by the engine: no checkpoint has these two
        self.k_scale._skip_weight_check = True
        self.w13_weight_g_idx = nn.Parameter(torch.zeros(3), requires_grad=False)
        self.experts = nn.Linear(4, 3, bias=False)
        self.experts.requires_grad_(False)
        self.experts.scheme = Packs()
        self.fails = False

    def load_weights(self, items: Sequence[tuple[str, Tensor]]) -> None:
        halves: dict[str, Tensor] = {}
        for name, tensor in items:
            if self.fails:
                raise KeyError(name)
            if "_a_proj" in name:
                halves[name] = tensor
                if len(halves) == 2:
                    self.fused.data.copy_(torch.cat([halves[key] for key in sorted(halves, reverse=True)]))
            elif name == "norm.weight":
                self.norm.data.copy_(tensor)
            elif name == "experts.weight":
                assert not self.experts.scheme.packed
                self.experts.weight.data.copy_(tensor)


class Here(Control):
    """A server without the server."""

    def __init__(self, model: Model, sessions: bool) -> None:
        super().__init__("http://127.0.0.1:9", "", 1)
        self.model, self.sessions = model, sessions
        self.said: list[str] = []
        self.running = self.gone = False

    def begin_session(self, selector: Any = "all") -> None:
        assert self.sessions
        self.said.append(f"begin {selector}")
        if selector == "all":
            self.model.experts.scheme.packed = False

    def end_session(self) -> None:
        assert self.sessions
        self.said.append("end")

    def update_tensors(self, serialized: Sequence[str], load_format: str | None, **more: Any) -> None:
        if self.gone:
            raise ControlError("SGLang is not there")
        assert load_format == LOADER and (not self.sessions or self.said[-1].startswith("begin"))
        serve(self.model, pickle.loads(base64.b64decode(serialized[0])))

    def flush(self, wait_s: float = 0.0) -> None:
        if self.running:
            raise ControlError("requests are still running", 400)
        self.said.append("flush")

    def set_version(self, version: str) -> None:
        self.said.append(f"version {version}")


def tensors(seed: int) -> list[NamedTensor]:
    draw = torch.Generator().manual_seed(seed)
    shapes = {"x.q_a_proj": (3, 4), "norm": (4,), "x.kv_a_proj_with_mqa": (2, 4), "experts": (3, 4)}
    return [NamedTensor(f"{name}.weight", torch.randn(shape, generator=draw)) for name, shape in shapes.items()]


def check_of(items: list[NamedTensor], strong: bool = True) -> Check:
    specs = [(item.name, DTYPE_NAMES[item.tensor.dtype], tuple(item.tensor.shape)) for item in items]
    return Check.of(specs, {item.name: int(checksum(item.tensor)) for item in items} if strong else None)


@pytest.fixture(params=[SESSIONS, NONE], ids=["sessions", "no-sessions"])
def release(request: pytest.FixtureRequest) -> Release:
    return request.param


@pytest.fixture
def here(release: Release) -> Here:
    return Here(Model(), release.sessions)


@pytest.fixture
def weights(here: Here, release: Release, tmp_path: Path) -> Iterator[Weights]:
    made = Weights(here, release, 1, tmp_path)
    yield made
    made.close()
    assert list(tmp_path.iterdir()) == []


def push(weights: Weights, version: int, items: list[NamedTensor], sent: list[NamedTensor] | None = None, strong: bool = True) -> None:
    weights.begin(version, strong)
    for bucket in pack(items if sent is None else sent, 16):  # a tensor each
        weights.load(bucket)
        bucket.data.fill_(255)
    weights.end(version, check_of(items, strong))


def holds(model: Model, items: list[NamedTensor]) -> bool:
    by = {item.name.split(".")[-2]: item.tensor for item in items}
    fused = torch.cat([by["q_a_proj"], by["kv_a_proj_with_mqa"]])
    return all(torch.equal(*pair) for pair in ((model.fused, fused), (model.norm, by["norm"]), (model.experts.weight, by["experts"])))


def test_halves_that_come_in_two_buckets_and_packed_experts_arrive_at_every_push(weights: Weights, here: Here) -> None:
    for version, seed in enumerate((1, 2, 1)):
        push(weights, version, tensors(seed), strong=version < 2)
        assert holds(here.model, tensors(seed)) and weights.version == version and weights.refusal() is None
    assert here.said[-2:] == ["flush", "version 2"]
    calls = here.model.experts.scheme.calls
    assert calls == ([] if here.sessions else ["restore", "process"] * 3)


@pytest.mark.parametrize("damage", ["corrupted", "missing", "swapped", "twice", "unknown", "failing"])
def test_a_damaged_push_is_refused_and_a_whole_one_mends_it(weights: Weights, here: Here, damage: str) -> None:
    push(weights, 1, tensors(1))
    good = tensors(2)
    sent, claimed, words = list(good), list(good), "bytes of"
    if damage == "corrupted":
        sent[1] = NamedTensor("norm.weight", good[1].tensor + 1)
    elif damage == "missing":
        sent, words = good[1:], "arrived"
    elif damage == "swapped":
        sent[0], sent[2] = NamedTensor(good[0].name, tensors(3)[0].tensor), good[2]
    elif damage == "twice":
        sent, words = [*good, good[0]], "sent twice"
    elif damage == "unknown":
        sent = claimed = [*good, NamedTensor("norm.weight_scale_inv", torch.ones(1))]
        words = r"no place, such as norm\.weight_scale_inv"
    else:
        here.model.fails, words = True, r"rank 0: KeyError"
    with pytest.raises(WeightMismatchError, match=words):
        push(weights, 2, claimed, sent)
    weights.abort("the push failed")
    assert isinstance(weights.refusal(), WeightMismatchError)
    here.model.fails = False
    push(weights, 3, good)
    assert holds(here.model, good) and weights.refusal() is None


def test_parameters_left_as_they_were_and_other_tables_are_refused_whether_or_not_checksums_are_asked_for(weights: Weights) -> None:
    with pytest.raises(WeightMismatchError, match="left as they were, such as norm"):
        push(weights, 0, [item for item in tensors(1) if item.name != "norm.weight"], strong=False)
    push(weights, 1, tensors(1), strong=False)
    with pytest.raises(WeightMismatchError, match="names, dtypes or shapes are not those"):
        push(weights, 2, tensors(1)[1:], strong=False)


def test_versions_grow_and_every_step_comes_in_its_turn(weights: Weights) -> None:
    assert isinstance(weights.refusal(), RuntimeError)
    bucket = next(pack(tensors(1), 1 << 20))
    with pytest.raises(RuntimeError, match="outside"):
        weights.load(bucket)
    with pytest.raises(WeightMismatchError, match=r"end_update\(3\) after begin_update\(None\)"):
        weights.end(3, check_of(tensors(1)))
    push(weights, 3, tensors(1))
    with pytest.raises(WeightMismatchError, match="version 3 is being served"):
        weights.begin(3)
    assert weights.version == 3 and weights.refusal() is None
    weights.dropped()
    assert weights.version == -1 and isinstance(weights.refusal(), RuntimeError)


def test_requests_that_stand_still_keep_their_cache_and_a_server_that_is_gone_is_no_mismatch(weights: Weights, here: Here) -> None:
    here.running = True
    push(weights, 1, tensors(1))
    assert weights.version == 1
    here.gone = True
    with pytest.raises(ControlError, match="not there"):
        push(weights, 2, tensors(2))


class Lone(nn.Module):
    """Without a low-rank query projection, as Moonlight: one half has no other."""

    def __init__(self) -> None:
        super().__init__()
        self.kv_a_proj_with_mqa = nn.Linear(4, 2, bias=False).requires_grad_(False)
        self.experts = nn.Module()
        self.experts.scheme = Packs()

    def load_weights(self, items: Sequence[tuple[str, Tensor]]) -> None:
        for _, tensor in items:
            self.kv_a_proj_with_mqa.weight.data.copy_(tensor)


def test_a_half_without_another_is_loaded_at_the_end(release: Release, tmp_path: Path) -> None:
    model: Any = Lone()
    weights = Weights(Here(model, release.sessions), release, 1, tmp_path)
    sent = NamedTensor("x.kv_a_proj_with_mqa.weight", torch.randn(2, 4))
    push(weights, 0, [sent])
    weights.close()
    assert torch.equal(model.kv_a_proj_with_mqa.weight, sent.tensor)


def test_a_rank_that_cannot_report_is_no_end_of_its_server(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    serve(Model(), [('{"op": "began", "reply": "' + str(tmp_path / "gone" / "reply") + '"}', torch.empty(0))])
    assert "no report of a weight operation" in caplog.text


def test_what_one_holds_another_takes(weights: Weights, here: Here, release: Release, tmp_path: Path) -> None:
    push(weights, 1, tensors(1))
    held = list(weights.held(16))
    assert [entry.name for bucket in held for entry in bucket.entries] == [
        *("0/fused", "0/norm", "0/k_scale", "0/w13_weight_g_idx"),
        "0/experts.weight",
    ]
    other = Here(Model(), release.sessions)
    taker = Weights(other, release, 1, tmp_path)
    taker.begin(1)
    for bucket in held:
        taker.load_held(bucket)
    taker.end_held(1)
    taker.close()
    assert holds(other.model, tensors(1)) and taker.version == 1
    assert "begin all" not in other.said and other.model.experts.scheme.calls == []
    taker.begin(2)
    taker.load_held(held[0])
    with pytest.raises(WeightMismatchError, match="did not hand over 4 parameters, such as norm"):
        taker.end_held(2)
    taker.close()
