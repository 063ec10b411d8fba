"""Rows of a parquet file as Python values, in batches."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lprl_api.errors import UserError
from lprl_workload.rollout.keys import prefixes

BATCH_ROWS = 1024
"""Rows decoded at a time: row groups may hold millions."""


def rows(path: Path, keys: tuple[str, ...], first: int, last: int | None) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (row number, its columns that `keys` can mean) for rows first <= number < last; raises UserError naming file and row."""
    try:
        file = pq.ParquetFile(str(path))
        wanted = {column for key in keys for column, _ in prefixes(key)}
        columns = [name for name in file.schema_arrow.names if name in wanted]
        twice = next((name for name in columns if columns.count(name) > 1), None)
        if twice is not None:
            raise UserError(f"{path}: column {twice!r} is there twice", "keep one of them")
        number = 0
        for group in range(file.num_row_groups):
            count = file.metadata.row_group(group).num_rows
            if number + count > first and (last is None or number < last):
                yield from _group(file, group, columns, number, range(first, number + count if last is None else last), path)
            number += count
    except (pa.ArrowException, OSError, NotImplementedError) as error:
        raise UserError(f"{path}: not a readable parquet file ({error})", "copy or download the file again") from error


def names(path: Path) -> list[str]:
    """Return the keys the file can be asked for: columns, and the fields of structs as dotted keys."""
    found: list[str] = []
    for field in pq.ParquetFile(str(path)).schema_arrow:
        inner = [field.type.field(i).name for i in range(field.type.num_fields)] if pa.types.is_struct(field.type) else []
        found += [f"{field.name}.{name}" for name in inner] or [field.name]
    return found


def _group(
    file: pq.ParquetFile, group: int, columns: list[str], number: int, wanted: range, path: Path
) -> Iterator[tuple[int, dict[str, Any]]]:
    if not columns:
        yield from ((n, {}) for n in range(number, number + file.metadata.row_group(group).num_rows) if n in wanted)
        return
    for batch in file.iter_batches(BATCH_ROWS, row_groups=[group], columns=columns):
        # A name such as a.b also selects field b of column a: only whole columns of these names are meant.
        fields = [field for field in batch.schema if field.name in columns]
        low, high = max(number, wanted.start), min(number + len(batch), wanted.stop)
        for n in range(low, high):
            yield n, {field.name: _value(batch.column(field.name)[n - number], f"{path} row {n} key {field.name!r}") for field in fields}
        number += len(batch)


def _value(scalar: Any, where: str) -> Any:
    try:
        return _plain(scalar.as_py(), scalar.type)
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: not UTF-8 ({error.reason} at byte {error.start})", "write the column in UTF-8") from error
    except (ValueError, OverflowError, pa.ArrowException) as error:
        raise UserError(f"{where}: a {scalar.type} that cannot be read ({error})", "write the column as text or numbers") from error


def _plain(value: Any, kind: pa.DataType) -> Any:
    """Return a value with maps as mappings, and single-precision numbers as they are written: 0.1, not 0.10000000149011612."""
    if value is None:
        return None
    if pa.types.is_float32(kind) or pa.types.is_float16(kind):
        return float(str(np.float32(value) if pa.types.is_float32(kind) else np.float16(value)))
    if pa.types.is_dictionary(kind):
        return _plain(value, kind.value_type)
    if pa.types.is_map(kind):
        return {key: _plain(part, kind.item_type) for key, part in value}
    if pa.types.is_struct(kind):
        return {field.name: _plain(value[field.name], field.type) for field in kind}
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return [_plain(part, kind.value_type) for part in value]
    return value
