"""Headers of safetensors files and small JSON files, read without trusting them.

A safetensors file is an 8-byte little-endian header length, a JSON header {name: {dtype, shape, data_offsets}}, then the data.
Headers are bounded, offsets must tile the data exactly and sizes must follow from dtype and shape, so that a hostile or
truncated file is refused before anything is mapped.
"""

import json
import math
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lprl_api.errors import UserError
from lprl_workload.io.sizes import ITEM_BYTES

MAX_HEADER_BYTES = 100_000_000
"""The limit of the safetensors library itself."""
MAX_JSON_BYTES = 256 * 1024 * 1024
MAX_JSON_DEPTH = 100
"""Objects and lists within each other. Published files have a dozen; a thousand end whatever copies or compares them."""
MAX_NAME_CHARACTERS = 512
LFS_POINTER = b"version https://git-lfs"
"""How the text file begins that Git keeps in the place of a large one."""
DAMAGED = "this file is cut or damaged: download or copy it again"


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor of a file: `start` is its absolute offset in the file, in bytes."""

    name: str
    dtype: str
    """safetensors name, a key of ITEM_BYTES."""
    shape: tuple[int, ...]
    start: int
    nbytes: int


def read_json(path: Path, *, unique: bool = False) -> dict[str, object]:
    """Read a JSON object of bounded size; `unique` refuses a key given twice, which readers resolve differently.

    Raises UserError when it is missing, too large, too deep or no object.
    """
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise UserError(f"{path}: larger than {MAX_JSON_BYTES} bytes", DAMAGED)
        document = json.loads(path.read_bytes(), object_pairs_hook=_once if unique else None)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file", "name the folder of a Hugging Face model") from error
    except (PermissionError, IsADirectoryError) as error:
        raise unreadable(path, error) from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({error})", DAMAGED) from error
    if not isinstance(document, dict):
        raise UserError(f"{path}: needs a JSON object, found {type(document).__name__}", DAMAGED)
    if _is_deeper(document, MAX_JSON_DEPTH):
        raise UserError(f"{path}: objects and lists nested more than {MAX_JSON_DEPTH} deep", DAMAGED)
    return document


def _is_deeper(document: object, depth: int) -> bool:
    level: list[Any] = [document]
    for _ in range(depth):
        level = [v for found in level for v in (found.values() if isinstance(found, dict) else found) if isinstance(v, dict | list)]
    return bool(level)


def unreadable(path: Path, error: OSError) -> UserError:
    """Return the error of a file that this process may not read, or that is none."""
    return UserError(f"{path}: cannot be read ({error.strerror})", "let the user this runs as (podSecurity) read the model's files")


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Make a dict of a JSON object's members; raises ValueError for a name given twice."""
    found = dict(pairs)
    if len(found) != len(pairs):
        (twice, _), *_ = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"{twice[:MAX_NAME_CHARACTERS]!r} is in it twice")
    return found


def read_header(path: Path) -> tuple[TensorInfo, ...]:
    """Return the tensors of a safetensors file in file order.

    Raises UserError naming the file and tensor when header, offsets, dtypes and sizes do not fit together.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(len(LFS_POINTER))
            if start == LFS_POINTER:
                raise UserError(
                    f"{path}: a pointer of Git LFS, not the file itself", "git lfs pull in that folder, or download the model again"
                )
            file.seek(8)
            length = int.from_bytes(start[:8], "little")
            if size < 8 or length > min(MAX_HEADER_BYTES, size - 8):
                raise UserError(f"{path}: not a safetensors file (header of {length} bytes in a file of {size})", DAMAGED)
            raw = file.read(length)
    except FileNotFoundError as error:
        what = f"a link to {path.readlink()}, which is not there" if path.is_symlink() else "no such file"
        raise UserError(f"{path}: {what}", "complete the download, or copy the model with the files its links lead to") from error
    except (PermissionError, IsADirectoryError) as error:
        raise unreadable(path, error) from error
    try:
        header = json.loads(raw, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: header is not valid JSON ({error})", DAMAGED) from error
    if not isinstance(header, dict):
        raise UserError(f"{path}: header is no JSON object", DAMAGED)
    tensors = [_tensor(path, name, entry, 8 + length) for name, entry in header.items() if name != "__metadata__"]
    tensors.sort(key=lambda t: (t.start, t.nbytes))
    position = 8 + length
    for tensor in tensors:
        if tensor.start != position:
            raise UserError(f"{path}: tensor {tensor.name}: starts at byte {tensor.start}, needs {position}", DAMAGED)
        position += tensor.nbytes
    if position != size:
        raise UserError(f"{path}: {size} bytes, its header describes {position} (truncated or corrupt)", DAMAGED)
    return tuple(tensors)


def _tensor(path: Path, name: str, entry: object, base: int) -> TensorInfo:
    if not isinstance(entry, dict):
        raise UserError(f"{path}: tensor {name}: header entry is no object", DAMAGED)
    dtype, shape, offsets = entry.get("dtype"), _naturals(entry.get("shape")), _naturals(entry.get("data_offsets"))
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        what = f"{path}: tensor {name}: dtype {dtype!r} is not supported; fits {', '.join(ITEM_BYTES)}"
        raise UserError(what, "save the model in one of these, such as bfloat16")
    if shape is None or offsets is None or len(offsets) != 2:
        raise UserError(f"{path}: tensor {name}: malformed shape or data_offsets", DAMAGED)
    nbytes = math.prod(shape) * ITEM_BYTES[dtype]
    if offsets[1] - offsets[0] != nbytes:
        raise UserError(f"{path}: tensor {name}: {offsets[1] - offsets[0]} bytes, {dtype} {list(shape)} needs {nbytes}", DAMAGED)
    return TensorInfo(name, dtype, shape, base + offsets[0], nbytes)


def _naturals(value: object) -> tuple[int, ...] | None:
    """Return a JSON list of natural numbers as a tuple, None for anything else."""
    if isinstance(value, list) and all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in value):
        return tuple(value)
    return None


def total_bytes(tensors: Iterable[TensorInfo]) -> int:
    """Return the sum of the tensors' bytes."""
    return sum(tensor.nbytes for tensor in tensors)
