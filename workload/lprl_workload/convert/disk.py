"""Is there room? Asked before the first byte is written, because a full volume after three hours helps nobody."""

import os
from pathlib import Path

from lprl_api.errors import StorageFullError

MARGIN_BYTES = 32 * 1024 * 1024
"""Room for indexes, reports and file system metadata."""


def existing_parent(path: Path) -> Path:
    """Return `path`, or the nearest folder above it that exists."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def free_bytes(path: Path) -> int:
    """Return the bytes an unprivileged process may still write on the volume of `path` (which need not exist yet)."""
    stat = os.statvfs(existing_parent(path))
    return stat.f_bavail * stat.f_frsize


def require_free(path: Path, needed: int, what: str, volume: str = "") -> None:
    """Refuse to start when `needed` bytes (and a margin) do not fit.

    Raises StorageFullError naming the volume, what is needed and what is free.
    """
    free = free_bytes(path)
    if needed and needed + MARGIN_BYTES > free:
        name = f"volume {volume} ({path})" if volume else str(path)
        raise StorageFullError(
            f"{name}: {what} needs {human_bytes(needed)} and {human_bytes(MARGIN_BYTES)} to spare, {human_bytes(free)} are free",
            f"free {human_bytes(needed + MARGIN_BYTES - free)} or enlarge the volume",
        )


def human_bytes(count: float) -> str:
    """Return a byte count for people: 1.5 GB (powers of 1000)."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(count) < 1000 or unit == "TB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.2f} {unit}"
        count /= 1000
    raise AssertionError("unreachable")
