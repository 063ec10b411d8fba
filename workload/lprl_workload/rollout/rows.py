"""Rows of a prompt file: JSON lines or parquet, only the columns and rows asked for."""

import codecs
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lprl_api.errors import UserError
from lprl_workload.rollout import rows_parquet
from lprl_workload.rollout.texts import kind

log = logging.getLogger(__name__)
MAX_LINE_BYTES = 16 * 1024 * 1024
"""Longest JSON line read."""
REPORT_ROWS = 50_000
"""Rows between two lines of the log while a large file is read."""
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
ONE_OBJECT = "every non-empty line must be one JSON object in UTF-8"


def read_rows(path: Path, columns: tuple[str, ...], first: int, last: int | None) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (row number in the file, 0-based; its columns) for rows first <= number < last.

    Args:
        path: a .jsonl or .parquet file.
        columns: keys the caller will look up (keys.py); JSON lines come with everything, parquet rows with what these can mean.
        first: first row.
        last: row after the last one; None is the end of the file.

    Raises:
        UserError: the file is missing, of another kind, or a row is not a JSON object (with its number).

    """
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no such file"
        raise UserError(f"{path}: {found}", "check data.prompts and the volume it names")
    readers = {".jsonl": _jsonl(path, first, last), ".parquet": rows_parquet.rows(path, columns, first, last)}
    rows = readers.get(path.suffix.lower())
    if rows is None:
        raise UserError(f"{path}: found {path.suffix or 'no suffix'}, needs .jsonl or .parquet")
    for count, row in enumerate(rows, 1):
        if count % REPORT_ROWS == 0:
            log.info("%s: %d rows read", path, count)
        yield row


def _jsonl(path: Path, first: int, last: int | None) -> Iterator[tuple[int, dict[str, Any]]]:
    number = -1
    with path.open("rb") as lines:
        start = lines.read(len(codecs.BOM_UTF8))
        if start.startswith(UTF16):
            raise UserError(f"{path}: begins with a UTF-16 mark, needs UTF-8", "write the file in UTF-8")
        if start != codecs.BOM_UTF8:
            lines.seek(0)
        while line := lines.readline(MAX_LINE_BYTES + 1):
            if not line.strip():
                continue
            number += 1
            if last is not None and number >= last:
                return
            if len(line) > MAX_LINE_BYTES:
                raise UserError(f"{path} row {number}: longer than {MAX_LINE_BYTES} bytes", "shorten or drop the row")
            if number >= first:
                yield number, _object(line, f"{path} row {number}")


def _object(line: bytes, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line.decode(), object_pairs_hook=lambda pairs: _once(pairs, where))
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: not UTF-8 (byte 0x{line[error.start]:02x} at byte {error.start} of the line)", ONE_OBJECT) from error
    except (ValueError, RecursionError) as error:
        digits = re.search(r"value has (\d+) digits", str(error))
        cause = f"a number of {digits[1]} digits: write it as text" if digits else str(error)
        raise UserError(f"{where}: not JSON ({cause})", ONE_OBJECT) from error
    if not isinstance(row, dict):
        raise UserError(f"{where}: found {kind(row)}, needs a JSON object", ONE_OBJECT)
    return row


def _once(pairs: list[tuple[str, Any]], where: str) -> dict[str, Any]:
    """Return an object of these pairs: of a key given twice, JSON readers keep one or the other."""
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise UserError(f"{where}: key {twice!r} is there twice in one object", "keep one of them")
    return found
