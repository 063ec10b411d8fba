"""Whether an engine's second load is a first one: weights, others, the first again; and whether it computes what we compute with them.

An engine that packs weights for its kernels may take them once only, or keep a scale of before. It would not say so.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from lprl_api.errors import UserError
from lprl_api.model.formats import WeightFormat
from lprl_api.model.model_shape import ModelShape
from lprl_workload.data import NamedTensor
from lprl_workload.hf.folder import read_folder
from lprl_workload.hf.naming import has_more
from lprl_workload.hf.served import ServedModel
from lprl_workload.hf.slots import is_known_extra, per_expert
from lprl_workload.io.dtypes import DTYPE_NAMES
from lprl_workload.quant.specs import Spec
from lprl_workload.rollout.engine import RolloutEngine
from lprl_workload.sync.buckets import pack, unpack
from lprl_workload.sync.checks import Check
from lprl_workload.sync.checksum import checksum
from lprl_workload.sync.probe import judge, probe_ids, trainer_limit

Tensors = Callable[[], Iterable[NamedTensor]]
"""Yields the same tensors in the served format at every call."""
PUSHES = 5
BUCKET_BYTES = 512 << 20


@dataclass(frozen=True, slots=True)
class Loaded:
    """What an engine is after a push."""

    sums: dict[str, int]
    """Checksum of everything it computes with."""
    logprobs: tuple[float, ...]


def load(engine: RolloutEngine, version: int, tensors: Tensors, ids: Sequence[int], bucket_bytes: int = BUCKET_BYTES) -> Loaded:
    """Push tensors as `version`, fully verified; raises what the engine raises."""
    specs: list[Spec] = []
    sums: dict[str, int] = {}

    def noted() -> Iterator[NamedTensor]:
        for item in tensors():
            specs.append((item.name, DTYPE_NAMES[item.tensor.dtype], tuple(item.tensor.shape)))
            sums[item.name] = int(checksum(item.tensor))
            yield item

    engine.begin_update(version, strong=True)
    try:
        for bucket in pack(noted(), bucket_bytes):
            engine.load_bucket(bucket)
    except Exception as error:
        engine.abort_update(str(error))
        raise
    engine.end_update(version, Check.of(specs, sums))
    held = {item.name: int(checksum(item.tensor)) for bucket in engine.held(bucket_bytes) for item in unpack(bucket)}
    return Loaded(held, engine.probe(ids))


def second_load(engine: RolloutEngine, vocab: int, one: Tensors, two: Tensors, pushes: int = PUSHES) -> tuple[str, Loaded]:
    """Push `one` and `two` in turns; returns what is wrong, in words (empty when nothing is), and what the first push made."""
    ids = probe_ids(vocab)
    found: list[Loaded] = []
    version = engine.weight_version
    for push in range(pushes):
        version += 1
        now = load(engine, version, two if push % 2 else one, ids)
        if push > 1 and (problem := _apart(found[push - 2], now)):
            return f"push {push + 1} of weights that were loaded before: {problem}", found[0]
        found.append(now)
    if pushes > 1 and found[0].sums == found[1].sums:
        return "other weights changed nothing in the engine", found[0]
    return "", found[0]


def _apart(before: Loaded, now: Loaded) -> str:
    wrong = sorted(name for name in before.sums | now.sums if before.sums.get(name) != now.sums.get(name))
    if wrong:
        return f"{len(wrong)} of {len(before.sums)} tensors in the engine are not what they were then, such as {wrong[0]}"
    return judge([before.logprobs, now.logprobs], None)


def served_tensors(folder: Path, shape: ModelShape) -> Iterator[NamedTensor]:
    """Yield the tensors of a folder as a push sends them."""
    if has_more(folder, shape.family):
        raise UserError(f"{folder}: {shape.architecture} is served by the torch engine alone", "name a model of a family with a table")
    for stored in read_folder(folder):
        yield from (NamedTensor(name, tensor) for name, tensor in per_expert(*stored) if not is_known_extra(name, shape))


def others(folder: Path, shape: ModelShape) -> Iterator[NamedTensor]:
    """Yield other weights of the same kind: every tensor's rows moved on by one."""
    for item in served_tensors(folder, shape):
        moved = item.tensor if item.name.endswith(".weight_shape") else item.tensor.view(_PLAIN[item.tensor.element_size()]).roll(1, 0)
        yield NamedTensor(item.name, moved.view(item.tensor.dtype))


_PLAIN = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Integers of as many bytes: not every dtype can be rolled."""


def against_ours(folder: Path, fmt: WeightFormat, shape: ModelShape, found: Sequence[float]) -> tuple[float, str]:
    """Return how far an engine's log-probabilities of the probe are from our own arithmetic on the same folder, and what is wrong."""
    served = ServedModel(folder, fmt, shape, "cpu")
    served.load_folder(folder)
    wanted = served.score(probe_ids(shape.vocab))
    mean = sum(abs(a - b) for a, b in zip(found, wanted, strict=True)) / len(wanted)
    return mean, judge([found], wanted, trainer_limit(fmt, fmt)).replace("the trainer", "our own arithmetic")
