"""Stand-ins for the two ends of a weight push: sources of any mesh, real gloo ranks in threads, engine ranks that keep what they get."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor
from torch._C._distributed_c10d import PrefixStore, ProcessGroupGloo, TCPStore

from lprl_api.model.formats import Bf16
from lprl_workload.data import Bucket
from lprl_workload.io.dtypes import DTYPE_NAMES
from lprl_workload.process.errors import WeightMismatchError
from lprl_workload.quant.scheme import quantize
from lprl_workload.sync.assemble import gather
from lprl_workload.sync.buckets import unpack
from lprl_workload.sync.checks import Arrived, Check
from lprl_workload.sync.manifest import Entry, Piece, ServedAs, Shard, WeightManifest, WeightSource
from lprl_workload.sync.peers import Alone, GroupPeers, Peers
from lprl_workload.sync.routes import route

T = TypeVar("T")
ROW_PARALLEL = ("o_proj.weight", "down_proj.weight")
COLUMN_PARALLEL = (
    "q_proj.weight",
    "k_proj.weight",
    "v_proj.weight",
    "gate_proj.weight",
    "up_proj.weight",
    "embed_tokens.weight",
    "lm_head.weight",
)


@dataclass(frozen=True, slots=True)
class Mesh:
    """tp x ep x pp ranks, tp fastest; experts of a rank are cut by tp too."""

    tp: int = 1
    ep: int = 1
    pp: int = 1

    @property
    def ranks(self) -> int:
        """Return how many ranks there are."""
        return self.tp * self.ep * self.pp

    def rank(self, tp: int, ep: int, pp: int) -> int:
        """Return a rank's number."""
        return (pp * self.ep + ep) * self.tp + tp


def mesh_manifest(weights: Mapping[str, Tensor], mesh: Mesh, layers: int, experts: int) -> WeightManifest:
    """Return who would own what: layers by pipeline stage, experts by expert rank, matrices cut by tensor rank, the rest one rank's."""
    entries = []
    for name, tensor in weights.items():
        parts = name.split(".")
        layer = int(parts[2]) if parts[:2] == ["model", "layers"] else (0 if "embed" in name else layers - 1)
        expert = int(parts[parts.index("experts") + 1]) if "experts" in parts else None
        ep, pp = (expert * mesh.ep // experts if expert is not None else 0), layer * mesh.pp // layers
        cut = 0 if name.endswith(COLUMN_PARALLEL) else 1 if name.endswith(ROW_PARALLEL) else None
        shape, none = tuple(tensor.shape), (0,) * tensor.ndim
        pieces: tuple[Piece, ...] = (Piece(mesh.rank(0, ep, pp), none, shape),)
        if cut is not None and shape[cut] % mesh.tp == 0:
            size = shape[cut] // mesh.tp
            part = (*shape[:cut], size, *shape[cut + 1 :])
            pieces = tuple(Piece(mesh.rank(t, ep, pp), (*none[:cut], t * size, *none[cut + 1 :]), part) for t in range(mesh.tp))
        entries.append(Entry(name, DTYPE_NAMES[tensor.dtype], shape, pieces))
    return WeightManifest(mesh.ranks, tuple(entries))


class StandInSource:
    """WeightSource of one rank of any manifest, out of whole weights; yields in an order of its own."""

    def __init__(
        self, weights: Mapping[str, Tensor], manifest: WeightManifest, rank: int, fault: Callable[[str], None] | None = None
    ) -> None:
        """`fault` is called with each name before it is yielded, and may raise."""
        self._weights, self._manifest, self._rank, self._fault = weights, manifest, rank, fault
        self._entries = {entry.name: entry for entry in manifest.entries}
        self.device = torch.device("cpu")

    def manifest(self) -> WeightManifest:
        """Return who owns what."""
        return self._manifest

    def shards(self, names: Sequence[str]) -> Iterator[Shard]:
        """Yield this rank's pieces, last name first."""
        for name in reversed(names):
            for piece in self._entries[name].pieces:
                if piece.rank == self._rank:
                    if self._fault is not None:
                        self._fault(name)
                    yield Shard(name, piece.offset, self._weights[name][piece.index] if piece.shape else self._weights[name])


def one_owner(weights: Mapping[str, Tensor]) -> WeightManifest:
    """Return the manifest of a trainer of one rank."""
    return WeightManifest(
        1, tuple(Entry(n, DTYPE_NAMES[t.dtype], tuple(t.shape), (Piece(0, (0,) * t.ndim, tuple(t.shape)),)) for n, t in weights.items())
    )


def converted(weights: Mapping[str, Tensor], served_as: ServedAs) -> dict[str, Tensor]:
    """Return the offline conversion of an export: the converter's own quantizer, tensor by tensor."""
    found: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        selected = not isinstance(served_as.fmt, Bf16) and served_as.selection.selects(name, tuple(tensor.shape))
        found |= quantize(name, tensor, served_as.fmt) if selected else {name: tensor}
    return found


def moved(weights: Mapping[str, Tensor], by: float) -> dict[str, Tensor]:
    """Return the weights, each larger by a share of itself."""
    return {name: (tensor.float() * (1 + by)).to(tensor.dtype) for name, tensor in weights.items()}


def whole_weights(source: WeightSource, peers: Peers, served_as: ServedAs) -> dict[str, Tensor]:
    """Return every tensor, on rank 0; nothing on the others, which have to call it too."""
    found: dict[str, Tensor] = {}
    routes = route(source.manifest(), (), 1 << 20, served_as, senders=(0,))
    gather(source, routes, peers, lambda item: found.__setitem__(item.name, item.tensor))
    return found


class Ranks:
    """`world` trainer ranks in threads, which meet over real gloo groups."""

    def __init__(self, world: int, timeout_s: float = 20.0) -> None:
        """Make the group."""
        self.world = world
        self._pool = ThreadPoolExecutor(world)
        self._store = TCPStore("127.0.0.1", 0, None, True, timedelta(seconds=timeout_s), wait_for_workers=False)
        self._timeout = timedelta(seconds=timeout_s)
        self.peers: list[Peers] = [Alone()] if world == 1 else list(self._pool.map(self._join, range(world)))

    def _join(self, rank: int) -> Peers:
        store = TCPStore("127.0.0.1", self._store.port, None, False, self._timeout, wait_for_workers=False)
        return GroupPeers(ProcessGroupGloo(PrefixStore("ranks", store), rank, self.world, self._timeout), rank, self.world)

    def together(self, act: Callable[[int, Peers], T], deadline_s: float = 60.0) -> list[T | BaseException]:
        """Call `act(rank, peers)` on every rank at once; return results, or what was raised. A rank that hangs is a TimeoutError."""
        calls = [self._pool.submit(act, rank, peers) for rank, peers in enumerate(self.peers)]
        found: list[T | BaseException] = []
        for call in calls:
            error = call.exception(timeout=deadline_s)
            found.append(call.result() if error is None else error)
        return found

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)


@dataclass
class Keeper:
    """An engine rank that keeps the bytes it got, and serves them only when they were committed."""

    fault: Callable[[Bucket], Bucket] = lambda bucket: bucket
    """What becomes of a bucket on its way; may raise."""
    version: int = -1
    served: dict[str, Tensor] | None = None
    _incoming: dict[str, Tensor] = field(default_factory=dict)
    _arrived: Arrived | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begin_update(self, version: int, strong: bool = False) -> None:
        """Stop serving."""
        self.served, self._incoming, self._arrived = None, {}, Arrived(strong)

    def load_bucket(self, bucket: Bucket) -> None:
        """Keep a copy of the tensors."""
        bucket = self.fault(bucket)
        with self._lock:
            assert self._arrived is not None
            self._arrived.add(bucket)
            self._incoming |= {item.name: item.tensor.clone() for item in unpack(bucket)}

    def end_update(self, version: int, check: Check) -> None:
        """Serve what came, when it is what was sent."""
        assert self._arrived is not None
        arrived, self._arrived = self._arrived, None
        if problem := arrived.compare(check):
            raise WeightMismatchError(problem)
        self.served, self.version = self._incoming, version

    def abort_update(self, why: str) -> None:
        """Serve nothing."""
        self._arrived = None
