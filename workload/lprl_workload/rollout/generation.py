"""Batched generation: one prefill per distinct prompt, one forward pass per token, finished rows dropped."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lprl_workload.data import Completion, GenerationRequest, SamplingParams
from lprl_workload.episode import Span
from lprl_workload.process.movement import here
from lprl_workload.rollout.kv_cache import GrowingCache
from lprl_workload.rollout.sampling import draw

COMPACT_BELOW = 0.75
"""Finished rows are dropped when fewer than this share of the rows is alive: dropping copies the cache."""

Decode = Callable[[Sequence[int]], str]


@dataclass(frozen=True, slots=True)
class StopRule:
    """When a response ends."""

    token_ids: frozenset[int]
    strings: tuple[str, ...]
    decode: Decode

    def hits(self, response: Sequence[int]) -> bool:
        """Return whether `response` ends with a stop token or its last tokens complete a stop string."""
        if response[-1] in self.token_ids:
            return True
        if not self.strings:
            return False
        # A token other than a special one is at least one byte of UTF-8; four more tokens for a character cut in two.
        longest = max(len(text.encode()) for text in self.strings)
        tail = self.decode(response[-(longest + 4) :])
        return any(text in tail for text in self.strings)


@dataclass(slots=True)
class Row:
    """One response in the making."""

    request: GenerationRequest
    limit: int
    """Most tokens it may have."""
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    stopped: bool = False

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self.stopped or len(self.tokens) >= self.limit

    def completion(self, version: int) -> Completion:
        """Return the finished response, all of it drawn with weights `version`."""
        ids, logprobs = np.array(self.tokens, np.int32), np.array(self.logprobs, np.float32)
        return Completion(ids, logprobs, "stop" if self.stopped else "length", (Span(version, 0, len(ids)),))


@dataclass(slots=True)
class _State:
    """What the decode loop carries, all of it by live row."""

    cache: GrowingCache
    rows: list[Row]
    mask: Tensor | None
    """int64 [B, length], 0 on left padding; None when no row is padded."""
    positions: Tensor
    """int64 [B] position of the next token."""
    seeds: Tensor

    def select(self, keep: Tensor, rows: list[Row]) -> None:
        """Keep the rows numbered `keep` (int64 on the device)."""
        self.cache.select(keep)
        self.rows = rows
        self.mask = None if self.mask is None else self.mask[keep]
        self.positions, self.seeds = self.positions[keep], self.seeds[keep]


def _prefill(model: Any, rows: list[Row], device: torch.device) -> tuple[_State, Tensor]:
    """Run the distinct prompts once, left-padded, and repeat the cache for every row; returns logits [B, V]."""
    prompts = {row.request.prompt_ids.tobytes(): row.request.prompt_ids for row in rows}
    order = {key: place for place, key in enumerate(prompts)}
    lengths = torch.tensor([len(prompt) for prompt in prompts.values()])
    width = int(lengths.max())
    ids = torch.tensor(np.stack([np.pad(prompt.astype(np.int64), (width - len(prompt), 0)) for prompt in prompts.values()]), device=device)
    columns = torch.arange(width)
    mask = (columns >= width - lengths[:, None]).long()
    padded = bool((lengths < width).any())
    positions = (mask.cumsum(-1) - 1).clamp_(min=0)
    cache = GrowingCache()
    out = model(
        input_ids=ids,
        attention_mask=mask.to(device) if padded else None,
        position_ids=positions.to(device),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    source = torch.tensor([order[row.request.prompt_ids.tobytes()] for row in rows], device=device)
    if len(order) < len(rows):
        cache.select(source)
    seeds = torch.tensor([row.request.seed for row in rows], device=device)
    state = _State(cache, rows, mask.to(device)[source] if padded else None, lengths.to(device)[source], seeds)
    return state, out.logits[:, -1][source]


def _step(model: Any, state: _State, tokens: Tensor) -> Tensor:
    """Feed one token per row; returns logits [B, V]."""
    if state.mask is not None:
        state.mask = torch.cat([state.mask, state.mask.new_ones((len(state.rows), 1))], dim=1)
    out = model(
        input_ids=tokens[:, None],
        attention_mask=state.mask,
        position_ids=state.positions[:, None],
        past_key_values=state.cache,
        use_cache=True,
    )
    state.positions = state.positions + 1
    return out.logits[:, -1]  # type: ignore[no-any-return]


def _record(rows: list[Row], tokens: Tensor, logprobs: Tensor, stop: StopRule) -> None:
    """Append one token to every live row; finished rows still in the batch ignore theirs."""
    for row, token, logprob in zip(rows, tokens.tolist(), logprobs.tolist(), strict=True):
        if row.done:
            continue
        row.tokens.append(token)
        row.logprobs.append(logprob)
        row.stopped = stop.hits(row.tokens)
        if row.done:
            here.finished()


@torch.no_grad()
def generate_rows(model: Any, rows: list[Row], params: SamplingParams, stop: StopRule, device: torch.device) -> None:
    """Complete every row in place: the rows are one batch.

    Args:
        model: a transformers causal model in evaluation mode.
        rows: rows with a limit of at least 1.
        params: temperature, top-p, top-k.
        stop: when a response ends; the ending token stays in it.
        device: of the model.

    """
    state, logits = _prefill(model, rows, device)
    drawn = 0
    while True:
        result = draw(logits, params, state.seeds, torch.full_like(state.seeds, drawn))
        drawn += 1
        here.tick()
        tokens = result.tokens
        _record(state.rows, tokens, result.logprobs, stop)
        alive = [place for place, row in enumerate(state.rows) if not row.done]
        if not alive:
            return
        if len(alive) < COMPACT_BELOW * len(state.rows):
            keep = torch.tensor(alive, device=device)
            state.select(keep, [state.rows[place] for place in alive])
            tokens = tokens[keep]
        logits = _step(model, state, tokens)


def batches(rows: Sequence[Row], max_rows: int, max_tokens: int) -> list[list[Row]]:
    """Split rows into batches of similar prompt length, equal prompts side by side.

    Invariants: every row is in one batch; a batch has at most `max_rows` rows, and unless it is a single row its padded
    worst case (longest prompt + largest limit) x rows is at most `max_tokens`. Independent of the order of `rows` up to
    the order of equal requests.
    """
    ordered = sorted(rows, key=lambda row: (len(row.request.prompt_ids), row.request.prompt_ids.tolist(), row.request.seed))
    parts: list[list[Row]] = []
    widest = 0
    for row in ordered:
        width = len(row.request.prompt_ids) + row.limit
        if parts and len(parts[-1]) < max_rows and max(widest, width) * (len(parts[-1]) + 1) <= max_tokens:
            parts[-1].append(row)
            widest = max(widest, width)
        else:
            parts.append([row])
            widest = width
    return parts
