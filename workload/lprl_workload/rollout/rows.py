"""Rows of a prompt file: JSON lines or parquet, only the columns and rows asked for."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lprl_api.errors import UserError

MAX_LINE_BYTES = 16 * 1024 * 1024
"""Longest JSON line read."""


def read_rows(path: Path, columns: tuple[str, ...], first: int, last: int | None) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (row number in the file, 0-based; its columns) for rows first <= number < last.

    Raises:
        UserError: the file is missing, of another kind, or a row is not a JSON object (with its number).

    """
    if not path.is_file():
        raise UserError(f"{path}: no such file", "check data.prompts and the volume it names")
    if path.suffix == ".jsonl":
        yield from _jsonl(path, first, last)
    elif path.suffix == ".parquet":
        yield from _parquet(path, columns, first, last)
    else:
        raise UserError(f"{path}: found {path.suffix or 'no suffix'}, needs .jsonl or .parquet")


def _jsonl(path: Path, first: int, last: int | None) -> Iterator[tuple[int, dict[str, Any]]]:
    number = -1
    with path.open("rb") as lines:
        while line := lines.readline(MAX_LINE_BYTES + 1):
            if not line.strip():
                continue
            number += 1
            if last is not None and number >= last:
                return
            if len(line) > MAX_LINE_BYTES:
                raise UserError(f"{path} row {number}: longer than {MAX_LINE_BYTES} bytes")
            if number < first:
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise UserError(f"{path} row {number}: not JSON ({error})", "every non-empty line must be one JSON object") from error
            if not isinstance(row, dict):
                raise UserError(f"{path} row {number}: found a {type(row).__name__}, needs a JSON object")
            yield number, row


def _parquet(path: Path, columns: tuple[str, ...], first: int, last: int | None) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        file = pq.ParquetFile(str(path))
        present = [name for name in columns if name in file.schema_arrow.names]
        number = 0
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            wanted = number + rows > first and (last is None or number < last)
            if wanted:
                for offset, row in enumerate(file.read_row_group(group, columns=present).to_pylist()):
                    if first <= number + offset and (last is None or number + offset < last):
                        yield number + offset, row
            number += rows
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: not a readable parquet file ({error})") from error
