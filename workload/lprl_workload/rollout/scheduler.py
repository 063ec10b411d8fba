"""Continuous batching: rows enter and leave one by one, every step draws one token for each row in work.

No thread and no lock here: `step` is called by one caller at a time (engine_torch.py). A row leaves at the step it ends, the next
waiting one enters at the following step, first come first served.

What a row draws does not depend on what else is in the batch, bit for bit, where the device's matrix products do not depend on
the number of rows (`rows_are_independent`); three things beside them would let neighbours in, and are kept out:
- a product of fewer than MIN_ROWS rows takes another kernel: passes are filled up with rows that nobody reads;
- the last elements of a flat array go through scalar instead of vector code, whose exp differs in the last bit: passes hold a
  multiple of `row_quantum` rows;
- attention over more keys adds in another order: a prompt is prefilled among prompts of its own length, rounded up, and keys are
  read from column 0 in multiples of slots.COLUMN_STEP.
"""

import math
from collections import defaultdict, deque
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lprl_api.model.model_shape import ModelShape
from lprl_workload.hf.experts import MIN_ROWS, keep_rows_apart
from lprl_workload.hf.logits import logits_of
from lprl_workload.hf.packed_linear import has_states
from lprl_workload.rollout.generation import Row
from lprl_workload.rollout.sampling import draw
from lprl_workload.rollout.slots import COLUMN_STEP, SlotCache

VECTOR = 32
"""Elements of one step of vectorised CPU code: two registers of 16."""
PROMPT_STEP = 32
"""Prompts are prefilled in lengths rounded up to this; where layers keep states, which padding would enter, each length by itself."""
PREFILL_TOKENS = 16384
"""Prompt tokens of one prefill pass, at most (one prompt may be longer)."""


def up(value: int, step: int) -> int:
    """Return `value` rounded up to a multiple of `step`."""
    return -(-value // step) * step


def row_quantum(widths: Sequence[int]) -> int:
    """Return the smallest number of rows, at least MIN_ROWS, that fills whole vectors at every width (elements a row)."""
    return math.lcm(MIN_ROWS, *(VECTOR // math.gcd(VECTOR, width) for width in widths))


def widths(shape: ModelShape) -> list[int]:
    """Return how many elements of a row the model's elementwise steps work at."""
    found = [shape.vocab, shape.ffn, shape.mla.qk_rope_head_dim if shape.mla else shape.head_dim]
    return found + ([shape.moe.experts, shape.moe.expert_ffn] if shape.moe else [])


@lru_cache
def rows_are_independent(device: str, inner: int, outer: int) -> bool:
    """Return whether a row of a matrix product [n, inner] x [inner, outer] is the same at every n from MIN_ROWS on, as found by trying."""
    if torch.device(device).type != "cpu":
        return False
    generator = torch.Generator().manual_seed(0)
    weight, rows = torch.randn(outer, inner, generator=generator), torch.randn(64, inner, generator=generator)
    whole = torch.nn.functional.linear(rows, weight)
    return all(torch.equal(torch.nn.functional.linear(rows[:n], weight), whole[:n]) for n in (4, 5, 7, 8, 12, 16, 31, 32, 48))


class Scheduler:
    """The rows of one model; see the module."""

    def __init__(self, model: Any, device: torch.device, max_rows: int, max_tokens: int, quantum: int) -> None:
        """Work with `model` (a transformers causal model in evaluation mode) on `device`.

        Args:
            model: the model.
            device: of the model.
            max_rows: rows in work at a time.
            max_tokens: positions the cache may hold: (longest prompt + limit) x rows stays below, unless it is one row.
            quantum: rows of a pass are a multiple of this (`row_quantum`).

        """
        self._model, self._device = model, device
        self._max_rows, self._max_tokens, self._quantum = max_rows, max_tokens, quantum
        self._cache = SlotCache()
        self.waiting: deque[Row] = deque()
        """First come, first served; another thread may add while a step is running."""
        self.running: list[Row] = []
        """Row i is in slot i."""
        keep_rows_apart(model)
        self._step_of_prompts = 1 if has_states(model) else PROMPT_STEP

    def add(self, row: Row) -> None:
        """Let a row wait for a place."""
        self.waiting.append(row)

    def remove(self, rows: Sequence[Row]) -> None:
        """Take rows out, wherever they are."""
        gone = {id(row) for row in rows}
        self.waiting = deque(row for row in self.waiting if id(row) not in gone)
        self._leave(lambda row: id(row) in gone)

    def retract(self) -> None:
        """Send the rows in work back to wait, first in line, with what they have drawn; the cache is freed."""
        self.waiting.extendleft(reversed(self.running))
        self.running = []
        self.free()

    def free(self) -> None:
        """Free the cache; there must be no row in work."""
        if self.running:
            raise RuntimeError(f"{len(self.running)} requests hold cache: abort or retract them first")
        self._cache = SlotCache()

    @torch.no_grad()
    def step(self) -> list[Row]:
        """Let waiting rows in, draw one token for every row in work; returns the rows that ended, which have left."""
        entering = self._admitted()
        decoding = len(self.running)
        if decoding:
            self._draw(self._decode(), self.running)
        for rows in _alike(entering, self._step_of_prompts):
            self._draw(self._prefill(rows), rows)
        ended = [row for row in self.running if row.done]
        self._leave(lambda row: row.done)
        if not self.running and not self.waiting:
            self.free()
        return ended

    def _leave(self, gone: Any) -> None:
        """Drop rows in work; each hole is filled with the last row."""
        place = 0
        while place < len(self.running):
            if not gone(self.running[place]):
                place += 1
                continue
            last = self.running.pop()
            if place < len(self.running):
                if gone(last):
                    self.running[place] = last  # looked at again
                    continue
                self.running[place] = last
                self._cache.move(len(self.running), place)

    def _admitted(self) -> list[Row]:
        """Take the rows that may enter now from the waiting ones, in order."""
        entering: list[Row] = []
        widest = max((row.width for row in self.running), default=0)
        while self.waiting and len(self.running) + len(entering) < self._max_rows:
            widest = max(widest, self.waiting[0].width)
            rows = len(self.running) + len(entering) + 1
            if rows > 1 and widest * rows > self._max_tokens:
                break
            entering.append(self.waiting.popleft())
        return entering

    def _prefill(self, rows: list[Row]) -> Tensor:
        """Put rows of one rounded length to work: each distinct context is computed once; returns logits [>= len(rows), V]."""
        contexts = {row.context.tobytes(): row.context for row in rows}
        order = {key: place for place, key in enumerate(contexts)}
        lengths = [len(context) for context in contexts.values()]
        width = up(max(lengths), self._step_of_prompts)
        ids = np.zeros((len(lengths), width), np.int64)
        for place, context in enumerate(contexts.values()):
            ids[place, : len(context)] = context
        self._cache.prefill()
        positions = torch.arange(width, device=self._device).expand(len(lengths), width)
        hidden = self._hidden(torch.from_numpy(ids).to(self._device), positions, None)
        self._reserve(len(self.running) + len(rows), width + 1)
        for row in rows:
            prompt = order[row.context.tobytes()]
            self._cache.place(len(self.running), prompt, lengths[prompt])
            row.cached = lengths[prompt]
            self.running.append(row)
        self._cache.settle()
        source = [order[row.context.tobytes()] for row in rows]
        source += [0] * (up(len(rows), self._quantum) - len(rows))
        last = hidden[torch.tensor(source), torch.tensor([lengths[prompt] - 1 for prompt in source])]
        return logits_of(self._model, last)

    def _decode(self) -> Tensor:
        """Feed every row in work its last token; returns logits [>= len(running), V]."""
        spare = up(len(self.running), self._quantum) - len(self.running)
        tokens = torch.tensor([row.tokens[-1] for row in self.running] + [0] * spare, device=self._device)
        columns = torch.tensor([row.cached for row in self.running] + [0] * spare, device=self._device)
        width = up(max(row.cached for row in self.running) + 1, COLUMN_STEP)
        self._reserve(len(columns), width)
        self._cache.decode(columns, width)
        after = torch.arange(width, device=self._device) > columns[:, None]
        mask = torch.zeros(after.shape, device=self._device, dtype=self._model.dtype).masked_fill_(after, -torch.inf)
        hidden = self._hidden(tokens[:, None], columns[:, None], mask[:, None, None])
        for row in self.running:
            row.cached += 1
        return logits_of(self._model, hidden[:, 0])

    def _hidden(self, ids: Tensor, positions: Tensor, mask: Tensor | None) -> Tensor:
        out = self._model.model(input_ids=ids, position_ids=positions, attention_mask=mask, past_key_values=self._cache, use_cache=True)
        return out.last_hidden_state  # type: ignore[no-any-return]

    def _reserve(self, rows: int, columns: int) -> None:
        """Grow the cache by halves, within what the rows in work can come to need."""
        slots, width = self._cache.size
        rows, columns = up(rows, self._quantum), up(columns, COLUMN_STEP)
        if rows > slots or columns > width:
            wanted = up(max((row.width for row in self.running), default=0), COLUMN_STEP)
            self._cache.reserve(
                max(rows, min(slots * 3 // 2, up(self._max_rows, self._quantum))) if rows > slots else slots,
                max(columns, min(width * 3 // 2, wanted)) if columns > width else width,
            )

    def _draw(self, logits: Tensor, rows: list[Row]) -> None:
        """Draw the next token of rows, whose logits come first in `logits` [n >= len(rows), V]."""
        by_params: dict[tuple[object, ...], list[int]] = defaultdict(list)
        for place, row in enumerate(rows):
            sampling = row.request.sampling
            by_params[sampling.temperature, sampling.top_p, sampling.top_k].append(place)
        for places in by_params.values():
            spare = up(len(places), self._quantum) - len(places)
            picked = places + [places[0]] * spare
            mine = logits if len(by_params) == 1 else logits[torch.tensor(picked, device=self._device)]
            picked = picked if len(by_params) > 1 else [*places, *[places[0]] * (len(logits) - len(places))]
            seeds = torch.tensor([rows[place].request.seed for place in picked], device=self._device)
            counts = torch.tensor([len(rows[place].tokens) for place in picked], device=self._device)
            drawn = draw(mine, rows[places[0]].request.sampling, seeds, counts)
            for place, token, logprob in zip(places, drawn.tokens.tolist(), drawn.logprobs.tolist(), strict=False):
                rows[place].take(token, logprob)


def _alike(rows: Sequence[Row], step: int) -> list[list[Row]]:
    """Split rows into prefill passes: contexts of one length rounded up to `step`, at most PREFILL_TOKENS of distinct ones."""
    by_length: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        by_length[up(len(row.context), step)].append(row)
    passes: list[list[Row]] = []
    for length, alike in by_length.items():
        seen: set[bytes] = set()
        current: list[Row] = []
        for row in alike:
            key = row.context.tobytes()
            if key not in seen and (len(seen) + 1) * length > PREFILL_TOKENS and current:
                passes.append(current)
                current, seen = [], set()
            seen.add(key)
            current.append(row)
        passes.append(current)
    return passes
