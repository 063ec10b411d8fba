"""How long one weight push takes: bytes over links, a constant per tensor and per bucket, and what bounds it. Pure numbers.

    seconds = start + engine's host work (tensors, buckets) + the slowest of (quantising, copies, NVLink, network)

Host work and transport follow each other within a bucket, unless buckets are double-buffered (`overlapped`): then the larger counts.
The rates below were measured with trainer and engine on one and two H200 (docs/performance.md has the pushes they are held against);
the network's are nominal. Pushes of several hosts were not measured.
"""

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

from lprl_api.model.formats import Bf16, WeightFormat
from lprl_api.model.model_shape import ModelShape
from lprl_api.model.weights import KEPT, fused_groups, layer_weights, selects, sized_weights
from lprl_api.wire.runconfig import Ranks
from lprl_operator.plan.types import Push

Names = Literal["names", "layout"]
Way = Literal["ipc", "broadcast"]


@dataclass(frozen=True)
class Rates:
    """What machines do; bytes a second and seconds."""

    memory: float = 4.26e12
    """GPU memory, bytes read and written."""
    link: float = 371e9
    """NVLink, into one GPU: NCCL broadcast of large messages."""
    peer: float = 385e9
    """NVLink, into one GPU: copies by handle."""
    network: float = 40e9
    """Into one GPU's NIC: 400 Gb/s at 80 %. Nominal."""
    host_network: float = 5e9
    """Into one host by its own network (Ray's object store). Assumed."""
    start: float = 0.003
    message: float = 20e-6
    """A parameter of the engine's own layout: one message, or one copy."""
    tensor: float = 38e-6
    """A tensor under its Hugging Face name, loaded by the engine."""
    scale: float = 75e-6
    """What is stored beside codes, likewise."""
    expert: float = 75e-6
    expert_scale: float = 125e-6
    bucket: tuple[float, float] = (3.2e-3, 4.7e-3)
    """A bucket by handle under names, without scales and with."""
    layout_bucket: tuple[float, float] = (1.5e-3, 2.4e-3)
    """The same in the engine's layout."""


H200 = Rates()


@dataclass(frozen=True)
class Load:
    """What one push carries: a manifest in numbers."""

    nbytes: int
    """Served."""
    quantised_bytes: int
    """Of BF16 weights that are quantised on the way."""
    tensors: int
    scales: int
    experts: int
    expert_scales: int
    parameters: int
    """Tensors of an engine that holds fused matrices and experts as one."""

    @property
    def names(self) -> int:
        """Tensors under Hugging Face names."""
        return self.tensors + self.scales + self.experts + self.expert_scales


@dataclass(frozen=True)
class Route:
    """How a push travels."""

    way: Way
    names: Names
    bucket_bytes: int
    senders: int = 1
    """GPUs that quantise and send at once."""
    same_gpu: bool = False
    """Trainer and the whole engine on one GPU: nothing crosses a link."""
    share: float = 1.0
    """Of the bytes, what one engine rank takes."""
    crossing: float = 0.0
    """Of the bytes, what reaches an engine's host from another one."""
    overlapped: bool = False
    """Buckets are double-buffered: engines load one while the next is on its way."""


@dataclass(frozen=True)
class PushTime:
    """A prediction."""

    seconds: float
    host: float
    moving: dict[str, float] = field(default_factory=dict)
    """Seconds of each resource that works while the others do."""

    @property
    def bound(self) -> str:
        """What takes most of it."""
        return max({"the engine's work per tensor and bucket": self.host, **self.moving}.items(), key=lambda item: item[1])[0]


@lru_cache(KEPT)
def load_of(shape: ModelShape, fmt: WeightFormat) -> Load:
    """Return what a push of a model in a format carries."""
    counts = {"tensors": 0, "scales": 0, "experts": 0, "expert_scales": 0}
    nbytes = quantised = 0
    for _, weight, taken, size in sized_weights(shape, fmt):
        nbytes += size
        quantised += 2 * weight.parameters if taken else 0
        beside = len(fmt.leaves) - 1 if taken else 0
        expert = weight.kind == "expert"
        counts["experts" if expert else "tensors"] += weight.copies
        counts["expert_scales" if expert else "scales"] += beside * weight.copies
    return Load(nbytes=nbytes, quantised_bytes=quantised, parameters=_parameters(shape, fmt), **counts)


def _parameters(shape: ModelShape, fmt: WeightFormat) -> int:
    """Return how many tensors an engine holds that fuses what it runs as one, and experts to two stacks a layer."""
    found = 2 if shape.tied_embeddings else 3
    for layer in range(shape.layers):
        weights = layer_weights(shape, layer)
        fused = sum(len(group) - 1 for group in fused_groups(weight.module for weight in weights))
        taken = [weight for weight in weights if selects(fmt, f"model.layers.{layer}.{weight.module}", weight)]
        beside = sum(len(group) - 1 for group in fused_groups(weight.module for weight in taken))
        scales = 0 if isinstance(fmt, Bf16) else (len(taken) - beside) * (len(fmt.leaves) - 1)
        found += len(weights) - fused + scales
    return found


def route_of(ranks: Ranks, bucket_bytes: int) -> Route:
    """Return how the pushes of a run travel today: under Hugging Face names, whole to every engine rank."""
    if ranks.placement == "split":
        return Route("broadcast", "names", bucket_bytes, senders=max(1, ranks.trainer_nodes), crossing=1.0)
    same = ranks.trainer_ranks == 1 and ranks.slots_per_engine == 1
    return Route("ipc", "names", bucket_bytes, senders=ranks.trainer_ranks, same_gpu=same, crossing=(ranks.nodes - 1) / ranks.nodes)


def plan_push(shape: ModelShape, fmt: WeightFormat, ranks: Ranks, bucket_bytes: int) -> Push | None:
    """Return what the plan of a job says of its pushes; None on a CPU, of which nothing was measured."""
    if ranks.accelerator == "cpu":
        return None
    load = load_of(shape, fmt)
    found = predict(load, route_of(ranks, bucket_bytes))
    parts = {"engine": found.host, **found.moving}
    moved = {name: round(seconds, 4) for name, seconds in parts.items() if seconds >= 5e-4}
    return Push(seconds=round(found.seconds, 3), nbytes=load.nbytes, tensors=load.names, bound=found.bound, parts=moved)


def predict(load: Load, route: Route, rates: Rates = H200) -> PushTime:
    """Return how long a push takes, and what of."""
    scaled = load.scales + load.expert_scales > 0
    buckets = route.senders * -(-load.nbytes // (route.senders * route.bucket_bytes)) if route.way == "ipc" else 0
    if route.names == "names":
        work = load.tensors * rates.tensor + load.scales * rates.scale
        host = work + load.experts * rates.expert + load.expert_scales * rates.expert_scale + buckets * rates.bucket[scaled]
    else:
        host = load.parameters * rates.message + buckets * rates.layout_bucket[scaled]
    moving = {"quantising": (load.quantised_bytes + load.nbytes) / rates.memory / route.senders if load.quantised_bytes else 0.0}
    # By handle everything is copied twice, into the bucket and out of it; each copy reads and writes.
    copies = 4 if route.way == "ipc" else 0
    moving["copies in GPU memory"] = copies * load.nbytes / rates.memory / route.senders
    if not route.same_gpu:
        moving["NVLink"] = load.nbytes * route.share / (rates.peer if route.way == "ipc" else rates.link)
    if route.crossing:
        network = rates.host_network if route.way == "ipc" else rates.network * route.senders
        moving["network (nominal)" if route.way == "broadcast" else "network (5 GB/s assumed)"] = load.nbytes * route.crossing / network
    slowest = max(moving.values())
    seconds = rates.start + (max(host, slowest) if route.overlapped else host + slowest)
    return PushTime(seconds, host, moving)
