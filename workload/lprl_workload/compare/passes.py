"""One pass over both folders, layer by layer, for any number of mixed models at once.

A mix is the converted model with some parts (attention or MLP of a layer) left at the source's weights. All mixes go through one
layer before the next one is read, so a pass reads each folder once however many mixes there are. A mix shares the hidden states of
the first one, the trunk, up to the first layer in which they differ; so of L mixes with one layer each, half of the layer passes are
saved, and L * L / 2 of them remain.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lprl_workload.compare.sides import Head, Side
from lprl_workload.compare.streams import MEMORY_BYTES, Batch, hidden_streams
from lprl_workload.compare.tally import Tally

Part = tuple[int, str]
"""(layer, module of PARTS)."""
Mix = frozenset[Part]
"""Parts left at the source's weights."""
LOGITS = 1 << 24
"""Logits of one model held at a time: positions x vocabulary."""
OnStep = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Pass:
    """What is run: the two sides, the texts, and the mixes, of which the first is the trunk."""

    source: Side
    converted: Side
    batches: Sequence[Batch]
    mixes: Sequence[Mix]
    memory_bytes: int = MEMORY_BYTES

    def starts(self) -> list[int]:
        """Return the layer in which each mix leaves the trunk; 0 for the trunk itself."""
        trunk = self.mixes[0]
        return [0, *(min(layer for layer, _ in mix ^ trunk) for mix in self.mixes[1:])]

    def steps(self) -> int:
        """Return the layer passes of one batch: those of the source, of the trunk and of each mix from its start on."""
        layers = self.source.layers
        return layers + sum(layers - start for start in self.starts()) + 1 + len(self.mixes)


@torch.inference_mode()
def run_pass(work: Pass, on_step: OnStep = lambda done, total: None) -> list[Tally]:
    """Return how far each mix is from the source, in the order of the mixes; `on_step` gets (layer passes done, all of them)."""
    source = work.source
    counter = _Counter(on_step, work.steps() * len(work.batches))
    with hidden_streams(1 + len(work.mixes), work.batches, source.shape.hidden, source.dtype, work.memory_bytes) as streams:
        for batch in work.batches:
            ids = batch.ids.reshape(-1)
            batch.rows(streams[0]).copy_(source.embed(ids).view(*batch.ids.shape, -1))
            batch.rows(streams[1]).copy_(work.converted.embed(ids).view(*batch.ids.shape, -1))
        for number in range(source.layers):
            _layer(work, number, streams, counter)
        return _tallies(work, streams, counter)


class _Counter:
    def __init__(self, on_step: OnStep, total: int) -> None:
        self._on_step, self._total, self._done = on_step, total, 0

    def add(self, count: int = 1) -> None:
        self._done += count
        self._on_step(self._done, self._total)


def _layer(work: Pass, number: int, streams: list[Tensor], counter: _Counter) -> None:
    """Move every stream through layer `number`; the source's weights stay beside the converted ones only where a mix needs them."""
    starts, device = work.starts(), work.source.device
    left = {part for mix in work.mixes for layer, part in mix if layer == number}
    with ExitStack() as stack:
        original = stack.enter_context(work.source.layer(number))
        for batch in work.batches:
            rows = batch.rows(streams[0])
            rows.copy_(work.source.run(original, rows.to(device)))
            counter.add()
        if not left:
            stack.close()
        layer = stack.enter_context(work.converted.layer(number))
        for batch in work.batches:
            trunk = batch.rows(streams[1])
            # The trunk last: mixes that leave it here start from what goes into this layer.
            for place in range(len(work.mixes) - 1, -1, -1):
                if starts[place] > number:
                    continue
                rows = batch.rows(streams[1 + place])
                before = trunk if starts[place] == number else rows
                with mixed(layer, original, [part for at, part in work.mixes[place] if at == number]) as module:
                    rows.copy_(work.converted.run(module, before.to(device)))
                counter.add()


@contextmanager
def mixed(layer: nn.Module, original: nn.Module, parts: Sequence[str]) -> Iterator[nn.Module]:
    """Give `layer` with some of its modules replaced by the original's."""
    own = {part: getattr(layer, part) for part in parts}
    for part in parts:
        setattr(layer, part, getattr(original, part))
    try:
        yield layer
    finally:
        for part, module in own.items():
            setattr(layer, part, module)


def _tallies(work: Pass, streams: list[Tensor], counter: _Counter) -> list[Tally]:
    tallies = [Tally() for _ in work.mixes]
    with work.source.head() as one, work.converted.head() as other:
        for batch in work.batches:
            place = batch.counted.reshape(-1).nonzero().squeeze(1)
            targets = batch.targets.reshape(-1)
            step = max(1, LOGITS // one.vocabulary)
            for chunk in torch.split(place, step):
                wanted = targets[chunk].to(work.source.device)
                reference = torch.log_softmax(_logits(one, streams[0], batch, chunk, work), dim=-1)
                for tally, stream in zip(tallies, streams[1:], strict=True):
                    tally.add(reference, torch.log_softmax(_logits(other, stream, batch, chunk, work), dim=-1), wanted)
            counter.add(1 + len(work.mixes))
    return tallies


def _logits(head: Head, stream: Tensor, batch: Batch, chunk: Tensor, work: Pass) -> Tensor:
    return head.logits(stream[batch.start + chunk].to(work.source.device))
