"""Texts as batches of rows, and the hidden states of all of them between two layers: in memory, or past a bound in a temporary file."""

import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from lprl_api.errors import UserError
from lprl_workload.compare.texts import Text

BATCH_TOKENS = 4096
"""Tokens, padding included, that go through a layer at a time."""
MEMORY_BYTES = 2 << 30
"""Hidden states beyond this go into a temporary file (in TMPDIR), which the kernel keeps in memory only while there is room."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Texts of similar length, padded on the right."""

    start: int
    """First row of the streams."""
    ids: Tensor
    """int64 [B, T]."""
    counted: Tensor
    """bool [B, T]: positions whose next token counts."""
    targets: Tensor
    """int64 [B, T]: the next token; 0 where there is none."""

    def rows(self, stream: Tensor) -> Tensor:
        """Return this batch's rows of a stream [N, H], a view [B, T, H]."""
        count = self.ids.numel()
        return stream[self.start : self.start + count].view(*self.ids.shape, stream.shape[1])


def make_batches(texts: Sequence[Text], tokens: int = BATCH_TOKENS) -> list[Batch]:
    """Return the texts in batches of at most `tokens` padded tokens (one text at least), the longest last."""
    batches: list[Batch] = []
    start, part = 0, list[Text]()
    for text in sorted(texts, key=lambda t: len(t.ids)):
        if part and len(text.ids) * (len(part) + 1) > tokens:
            batches.append(_batch(part, start))
            start += batches[-1].ids.numel()
            part = []
        part.append(text)
    return [*batches, _batch(part, start)] if part else batches


def _batch(texts: Sequence[Text], start: int) -> Batch:
    width = max(len(text.ids) for text in texts)
    ids = torch.zeros(len(texts), width, dtype=torch.int64)
    counted = torch.zeros(len(texts), width, dtype=torch.bool)
    for row, text in enumerate(texts):
        ids[row, : len(text.ids)] = torch.tensor(text.ids)
        counted[row, text.first - 1 : len(text.ids) - 1] = True
    targets = torch.cat([ids[:, 1:], torch.zeros(len(texts), 1, dtype=torch.int64)], dim=1)
    return Batch(start, ids, counted, targets)


@contextmanager
def hidden_streams(
    count: int, batches: Sequence[Batch], width: int, dtype: torch.dtype, limit: int = MEMORY_BYTES
) -> Iterator[list[Tensor]]:
    """Give `count` tensors [rows of all batches, width] for hidden states; those beyond `limit` bytes are a temporary file's.

    Raises UserError when the file has no room.
    """
    rows = sum(batch.ids.numel() for batch in batches)
    each = rows * width * dtype.itemsize
    inside = min(count, limit // max(each, 1))
    found = [torch.empty(rows, width, dtype=dtype) for _ in range(inside)]
    if inside == count:
        yield found
        return
    outside = count - inside
    with tempfile.NamedTemporaryFile(prefix="lprl-hidden-") as file:
        try:
            file.truncate(outside * each)
            mapped = torch.from_file(file.name, shared=True, size=math.prod((outside, rows, width)), dtype=dtype)
        except OSError as error:
            what = f"{file.name}: {error.strerror}, hidden states need {outside * each} bytes"
            raise UserError(what, "set TMPDIR to a folder with room, or take fewer rows (--rows, --sensitivity)") from error
        yield [*found, *mapped.view(outside, rows, width)]
