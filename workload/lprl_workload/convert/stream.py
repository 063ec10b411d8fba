"""Moves one shard through the quantizer in slabs of rows: memory map in, positional writes out, never a whole tensor in memory.

Slabs go in file order, so the source's digest is computed over bytes that are in the cache anyway.
"""

import math
import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor
from xxhash import xxh3_128

from lprl_api.errors import UserError
from lprl_api.model.formats import Bf16
from lprl_api.model.formats.fp8 import Fp8
from lprl_api.model.formats.mxfp4 import CompressedMxfp4
from lprl_workload.convert.digest import CHUNK_BYTES
from lprl_workload.convert.plan_shard import Piece
from lprl_workload.convert.writer import ShardWriter
from lprl_workload.folder.contents import FolderContents
from lprl_workload.folder.header import TensorInfo
from lprl_workload.io.dtypes import DTYPES
from lprl_workload.quant.fp8_exact import ExactFp8Encoder
from lprl_workload.quant.kernels import Kernels, kernels_of
from lprl_workload.quant.mxfp4 import decode
from lprl_workload.quant.scheme import dequantize, served_names
from lprl_workload.quant.slab import SLAB_BYTES, ErrorSums, SlabEncoder, raw_bytes

_FLOATING = (torch.bfloat16, torch.float16, torch.float32, torch.float64)
DAMAGED = "the weights in this file are damaged, or training diverged: download them again, or take an earlier checkpoint"


class MappedFile:
    """A read-only memory map of a shard, and a digest that follows reading in file order."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self.size = os.fstat(file.fileno()).st_size
            # ACCESS_COPY: torch wants a writable buffer; nothing writes, so no page is ever copied.
            self._map = mmap.mmap(file.fileno(), self.size, access=mmap.ACCESS_COPY)
        self._map.madvise(mmap.MADV_SEQUENTIAL)
        self._view = memoryview(self._map)
        self._bytes = torch.frombuffer(self._map, dtype=torch.uint8)
        self._digest = xxh3_128()
        self._hashed = 0

    def __enter__(self) -> "MappedFile":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        # The map is closed when the last tensor over it is gone.
        del self._view, self._bytes, self._map

    def bytes(self, start: int, nbytes: int) -> Tensor:
        """Return uint8 [nbytes], a view of the file."""
        return self._bytes[start : start + nbytes]

    def view(self, start: int, nbytes: int) -> memoryview:
        """Return the bytes themselves."""
        return self._view[start : start + nbytes]

    def tensor(self, info: TensorInfo) -> Tensor:
        """Return tensor `info`: a view of the file, or a copy where its offset is not aligned for its dtype."""
        raw = self.bytes(info.start, info.nbytes)
        return typed(raw, DTYPES[info.dtype]).reshape(info.shape)

    def hash_to(self, position: int) -> None:
        """Extend the digest up to an absolute position (nothing to do when it is beyond)."""
        while self._hashed < position:
            count = min(CHUNK_BYTES, position - self._hashed)
            self._digest.update(self._view[self._hashed : self._hashed + count])
            self._hashed += count

    def hexdigest(self) -> str:
        """Return the digest of the whole file."""
        self.hash_to(self.size)
        return str(self._digest.hexdigest())


def typed(raw: Tensor, dtype: torch.dtype) -> Tensor:
    """View uint8 [n] as [n / itemsize] of `dtype`; copies where the address is not aligned."""
    if raw.data_ptr() % dtype.itemsize or raw.storage_offset() % dtype.itemsize:
        raw = raw.clone()
    return raw.view(dtype)


def check_finite(values: Tensor) -> None:
    """Raise ValueError for NaN or infinite values; of dtypes that have them and that are copied, all are checked.

    A sum is not finite if a term is not, and takes 1/30 s per GB from cache; `isfinite` takes 3 s, so it only decides on sums
    that overflow.
    """
    if values.dtype in _FLOATING and not math.isfinite(float(values.sum())) and not bool(values.isfinite().all()):
        raise ValueError("NaN or infinite values")


def _encoder(piece: Piece, kernels: Kernels) -> SlabEncoder:
    fmt = piece.target_format
    if isinstance(piece.source_format, CompressedMxfp4) and isinstance(fmt, Fp8) and not fmt.whole:
        return ExactFp8Encoder(fmt, piece.shape[1])
    return kernels.encoder(fmt, piece.shape[1])


class ShardStream:
    """Converts the pieces of one shard into a ShardWriter."""

    def __init__(self, index: FolderContents, shard: str, writer: ShardWriter, on_bytes: Callable[[int], None]) -> None:
        self._index, self._shard, self._writer, self._on_bytes = index, shard, writer, on_bytes
        self._files: dict[str, MappedFile] = {}
        self._stack = ExitStack()

    def __enter__(self) -> "ShardStream":
        self._main = self._open(self._shard)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._files.clear()
        self._stack.close()

    def source_digest(self) -> str:
        """Return the XXH3 digest of the source shard."""
        return self._main.hexdigest()

    def _open(self, shard: str) -> MappedFile:
        if shard not in self._files:
            self._files[shard] = self._stack.enter_context(MappedFile(self._index.folder / shard))
        return self._files[shard]

    def convert(self, piece: Piece) -> ErrorSums | None:
        """Write the outputs of `piece`; returns its quantisation error, None for what is not quantised.

        Raises UserError naming the tensor for NaN or infinite values and for a stored shape that contradicts the codes.
        """
        try:
            if piece.copies:
                self._copy(piece)
                return None
            if piece.unpacks:
                self._unpack(piece)
                return None
            if isinstance(piece.target_format, Bf16):
                self._dequantize(piece)
                return None
            return self._quantize(piece)
        except ValueError as error:
            raise UserError(f"{self._index.folder / self._shard}: tensor {piece.name}: {error}", DAMAGED) from error

    def _copy(self, piece: Piece) -> None:
        offset = self._writer.offset(piece.name)
        dtype = DTYPES[piece.source.dtype]
        for start in range(0, piece.nbytes, SLAB_BYTES):
            count = min(SLAB_BYTES, piece.nbytes - start)
            self._main.hash_to(piece.start + start + count)
            check_finite(typed(self._main.bytes(piece.start + start, count), dtype))
            self._writer.pwrite(self._main.view(piece.start + start, count), offset + start)
            self._on_bytes(count)

    def _unpack(self, piece: Piece) -> None:
        """Write a layer's MXFP4 experts as BF16 [experts, in, out], one expert at a time."""
        offset = self._writer.offset(piece.name)
        experts, _, rows = piece.shape
        size = piece.nbytes // experts
        scales = self._open(self._index.where[piece.partners[0].name]).tensor(piece.partners[0])
        for expert in range(experts):
            start = piece.start + expert * size
            self._main.hash_to(start + size)
            values = decode(self._main.bytes(start, size).view(rows, -1, 16), scales[expert]).T.contiguous()
            check_finite(values)
            self._writer.pwrite(raw_bytes(values), offset)
            offset += values.numel() * values.element_size()
            self._on_bytes(size)

    def _dequantize(self, piece: Piece) -> None:
        offset = self._writer.offset(piece.name)
        for rows in self._slabs(piece, 1):
            check_finite(rows)
            self._writer.pwrite(raw_bytes(rows), offset)
            offset += rows.numel() * rows.element_size()

    def _quantize(self, piece: Piece) -> ErrorSums:
        kernels = kernels_of(piece.target_format)
        encoder = _encoder(piece, kernels)
        if encoder.two_passes:
            for rows in self._slabs(piece, encoder.unit, count=False):
                encoder.measure(rows)
        codes_name, scale_name, *names = served_names(piece.name, piece.target_format)
        codes_at, scale_at = self._writer.offset(codes_name), self._writer.offset(scale_name)
        for rows in self._slabs(piece, encoder.unit):
            codes, scale = encoder.encode(rows)
            self._writer.pwrite(codes, codes_at)
            self._writer.pwrite(scale, scale_at)
            codes_at += len(codes)
            scale_at += 0 if encoder.two_passes else len(scale)
        for name, part in zip(names, kernels.tail(*piece.shape), strict=True):
            self._writer.pwrite(raw_bytes(part), self._writer.offset(name))
        return encoder.errors()

    def _slabs(self, piece: Piece, unit: int, count: bool = True) -> Iterator[Tensor]:
        """Yield the BF16 values of `piece` as [r, K] slabs of whole units of rows, in order."""
        rows, cols = piece.shape
        decode = self._decoder(piece)
        step = unit * piece.source_format.unit[0]
        step *= max(1, SLAB_BYTES // (2 * cols * step))
        row_bytes = piece.nbytes // rows
        for first in range(0, rows, step):
            last = min(first + step, rows)
            if count:
                self._main.hash_to(piece.start + last * row_bytes)
            yield decode(first, last)
            if count:
                self._on_bytes((last - first) * row_bytes)

    def _decoder(self, piece: Piece) -> Callable[[int, int], Tensor]:
        """Return a function (first row, last row) -> bfloat16 [rows, K], contiguous."""
        (rows, cols), fmt = piece.shape, piece.source_format
        stored = typed(self._main.bytes(piece.start, piece.nbytes), DTYPES[piece.source.dtype]).view(rows, -1)
        if isinstance(fmt, Bf16) and stored.dtype is torch.bfloat16:
            return lambda first, last: stored[first:last]
        if isinstance(fmt, Bf16):
            return lambda first, last: stored[first:last].to(torch.bfloat16)
        codes_name, scale_name, *names = served_names(piece.name, fmt)
        module, kernels, unit = piece.name.removesuffix(".weight"), kernels_of(fmt), fmt.unit[0]
        scale, *rest = (self._open(self._index.where[p.name]).tensor(p) for p in piece.partners)
        for leaf, found, wanted in zip(fmt.leaves[2:], rest, kernels.tail(rows, cols), strict=True):
            if found.tolist() != wanted.tolist():
                raise ValueError(f"{leaf} {found.tolist()}, codes and scales say {wanted.tolist()}")

        def decode(first: int, last: int) -> Tensor:
            part = scale if fmt.whole else scale[first // unit : -(-last // unit)]
            parts = {codes_name: stored[first:last], scale_name: part}
            parts.update(zip(names, kernels.tail(last - first, cols), strict=True))
            return dequantize(parts, module, fmt).to(torch.bfloat16)

        return decode
