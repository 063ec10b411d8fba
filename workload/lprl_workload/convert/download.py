"""Remote model folder -> local folder: resumable, checked, bounded, several files at a time, one writer of a folder at a time.

FOLDER/.download/state.json remembers which remote content every file came from; NAME.part grows beside it and is renamed when
size and digest are right; FOLDER/download.json is written last. A folder without it is unfinished and never used.
"""

import contextlib
import fcntl
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from lprl_api.errors import UserError
from lprl_workload.convert.disk import require_free
from lprl_workload.convert.files import CONFIG, MAX_FILES, MAX_SIDE_BYTES, WEIGHT_SUFFIX, is_wanted
from lprl_workload.convert.remote import (
    FILES_AT_ONCE,
    ChangedDownload,
    DownloadProgress,
    InterruptedDownload,
    OnDownload,
    Remote,
    RemoteFile,
    digests_fit,
)
from lprl_workload.convert.writer import fsync_folder, write_atomically
from lprl_workload.folder.files import INDEX_FILE, choose_files
from lprl_workload.folder.header import read_json

COMPLETE = "download.json"
WORK = ".download"
TRIES = 6
"""Attempts in a row without one new byte; a broken connection that moved bytes starts the count anew."""
FIRST_DELAY_S = 1.0
MAX_DELAY_S = 60.0


_T = TypeVar("_T")
log = logging.getLogger(__name__)


class _StoppedError(Exception):
    """Given up because of another file."""


def download(remote: Remote, folder: Path, on_progress: OnDownload, sleep: Callable[[float], None] = time.sleep) -> None:
    """Bring `folder` to completeness; returns at once when it is.

    Raises UserError (nothing usable there, no access, wrong digest twice) or StorageFullError; InterruptedDownload when the
    connection stays broken (a retry goes on where this one stopped).
    """
    if is_complete(folder):
        return
    (folder / WORK).mkdir(parents=True, exist_ok=True)
    with _exclusive(folder / WORK / "lock"):
        if is_complete(folder):
            return
        _Download(remote, folder, on_progress, sleep).run()


def is_complete(folder: Path) -> bool:
    """Return whether `folder` is a finished download with every file at its recorded size."""
    try:
        document = json.loads((folder / COMPLETE).read_bytes())
        return all((folder / name).stat().st_size == nbytes for name, nbytes in document["files"].items())
    except (FileNotFoundError, ValueError, KeyError, AttributeError, TypeError):
        return False


@contextlib.contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    """Hold the folder's lock: a second download of the same folder waits, and then finds it complete."""
    with path.open("a") as file:
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX)
        except OSError as error:
            raise UserError(
                f"{path.parent.parent}: the volume has no file locks ({error.strerror})", "use a volume with POSIX locks"
            ) from error
        yield


class _Download:
    """One run of a download, holding the folder's lock."""

    def __init__(self, remote: Remote, folder: Path, on_progress: OnDownload, sleep: Callable[[float], None]) -> None:
        self._remote, self._folder, self._on_progress, self._sleep = remote, folder, on_progress, sleep
        self._state_file = folder / WORK / "state.json"
        self._versions: dict[str, str] = self._read_state()
        self._done = self._skipped = self._total = 0
        self._started = time.monotonic()
        self._lock = threading.Lock()
        self._failed = threading.Event()
        """One file cannot be fetched: the others stop where they are."""

    def run(self) -> None:
        """Fetch small files first (they name the shards), then the shards."""
        listed = self._list()
        small = [file for file in listed if not file.name.endswith(WEIGHT_SUFFIX)]
        self._fetch_all(small)
        shards = self._shards(listed)
        self._fetch_all(shards)
        document = {"source": self._remote.description, "files": {f.name: f.nbytes for f in (*small, *shards)}}
        write_atomically(self._folder / COMPLETE, json.dumps(document, indent=1, sort_keys=True).encode())

    def _list(self) -> tuple[RemoteFile, ...]:
        listed = self._patiently(self._remote.list)
        wanted = tuple(sorted((file for file in listed if is_wanted(file.name)), key=lambda f: f.name))
        names = {file.name for file in wanted}
        if len(listed) > MAX_FILES:
            raise UserError(f"{self._remote.description}: {len(listed)} files; at most {MAX_FILES} are a model folder")
        if CONFIG not in names or not any(name.endswith(WEIGHT_SUFFIX) for name in names):
            missing = "no config.json" if CONFIG not in names else "no .safetensors files"
            raise UserError(f"{self._remote.description}: {missing} at its top", "name a Hugging Face model folder in safetensors format")
        for file in wanted:
            if not file.name.endswith(WEIGHT_SUFFIX) and file.nbytes > MAX_SIDE_BYTES:
                raise UserError(
                    f"{self._remote.description}: {file.name} has {file.nbytes} bytes; at most {MAX_SIDE_BYTES} fit such a file"
                )
        return wanted

    def _shards(self, listed: Sequence[RemoteFile]) -> list[RemoteFile]:
        """Return the files that are the model, by the rule for folders."""
        shards = {file.name: file for file in listed if file.name.endswith(WEIGHT_SUFFIX)}
        index = self._folder / INDEX_FILE
        weight_map = read_json(index, unique=True).get("weight_map") if index.exists() else None
        if index.exists() and not (isinstance(weight_map, dict) and all(isinstance(name, str) for name in weight_map.values())):
            raise UserError(
                f"{self._remote.description}: {INDEX_FILE}: weight_map is missing or malformed", "name a revision whose index is whole"
            )
        named, _ = choose_files(self._remote.description, shards, weight_map if isinstance(weight_map, dict) else None)
        return [shards[name] for name in named]

    def _fetch_all(self, files: Sequence[RemoteFile]) -> None:
        self._total += sum(file.nbytes for file in files)
        missing = sum(file.nbytes - self._present(file) for file in files)
        require_free(self._folder, missing, f"downloading {self._remote.description}")
        with ThreadPoolExecutor(FILES_AT_ONCE, thread_name_prefix="download") as pool:
            fetched = [pool.submit(self._fetch_or_stop, file) for file in files]
        errors = [error for future in fetched if (error := future.exception()) is not None]
        # What only the user can mend comes first: the rest is tried again by itself.
        for error in sorted(errors, key=lambda e: (isinstance(e, _StoppedError), not isinstance(e, UserError))):
            raise error

    def _fetch_or_stop(self, file: RemoteFile) -> None:
        try:
            self._fetch(file)
        except BaseException:
            self._failed.set()
            raise

    def _part(self, file: RemoteFile) -> Path:
        return self._folder / WORK / f"{file.name}.part"

    def _present(self, file: RemoteFile) -> int:
        """Return how many bytes of this very content are here."""
        if self._versions.get(file.name) != file.version:
            return 0
        final, part = self._folder / file.name, self._part(file)
        if final.exists() and final.stat().st_size == file.nbytes:
            return file.nbytes
        return min(part.stat().st_size, file.nbytes) if part.exists() else 0

    def _fetch(self, file: RemoteFile) -> None:
        part, final = self._part(file), self._folder / file.name
        with self._lock:
            if self._versions.get(file.name) != file.version:
                part.unlink(missing_ok=True)
                final.unlink(missing_ok=True)
                self._versions[file.name] = file.version
                write_atomically(self._state_file, json.dumps(self._versions, indent=1, sort_keys=True).encode())
            have = self._present(file)
            self._skipped += have
            self._done += have
        if final.exists() and final.stat().st_size == file.nbytes:
            self._report(file, 0)
            return
        final.unlink(missing_ok=True)
        self._fill(file, part)
        if not digests_fit(file, part):
            part.unlink()
            with self._lock:
                self._done -= file.nbytes
            self._fill(file, part)
            if not digests_fit(file, part):
                part.unlink()
                raise UserError(
                    f"{self._remote.description}: {file.name}: content does not match its digest, twice", "check the server and any proxy"
                )
        os.rename(part, final)
        fsync_folder(self._folder)
        self._report(file, 0)

    def _fill(self, file: RemoteFile, part: Path) -> None:
        """Append to `part` until it is whole; a broken connection goes on where it broke."""
        with part.open("ab") as out:

            def more() -> None:
                position = out.seek(0, os.SEEK_END)
                if position > file.nbytes:
                    out.truncate(0)
                    position = 0
                while position < file.nbytes:
                    before = position
                    for chunk in self._remote.read(file, position):
                        out.write(chunk[: file.nbytes - position])
                        position += len(chunk)
                        self._report(file, len(chunk))
                        if self._failed.is_set():
                            raise _StoppedError(f"{file.name}: stopped, since another file cannot be fetched")
                        if position > file.nbytes:
                            raise ChangedDownload(f"{file.name}: more than the {file.nbytes} bytes it was listed with")
                    if position == before:
                        raise InterruptedDownload(f"{file.name}: the connection ended at byte {position} of {file.nbytes}")

            try:
                self._patiently(more, lambda: out.seek(0, os.SEEK_END))
            except ChangedDownload as error:
                raise UserError(
                    f"{self._remote.description}: changed while it was downloaded ({error})", "name a fixed revision"
                ) from error
            finally:
                out.flush()
            os.fsync(out.fileno())

    def _patiently(self, step: Callable[[], _T], position: Callable[[], int] = lambda: 0) -> _T:
        """Run `step` until it does not break; gives up after TRIES in a row that did not advance `position`."""
        failures, reached = 0, position()
        while True:
            try:
                return step()
            except InterruptedDownload as error:
                now = position()
                if self._failed.is_set():
                    raise _StoppedError(str(error)) from error
                failures, reached = (0 if now > reached else failures + 1), max(now, reached)
                if failures >= TRIES:
                    raise
                delay = min(MAX_DELAY_S, FIRST_DELAY_S * 2.0**failures)
                log.warning("%s: %s; trying again in %.0f s from byte %d", self._remote.description, error, delay, now)
                self._sleep(delay)

    def _report(self, file: RemoteFile, more: int) -> None:
        """Count `more` bytes and tell; one at a time, so that what is told only grows."""
        with self._lock:
            self._done += more
            elapsed = time.monotonic() - self._started
            self._on_progress(DownloadProgress(file.name, self._done, self._total, self._skipped, elapsed))

    def _read_state(self) -> dict[str, str]:
        if not self._state_file.exists():
            return {}
        return {name: str(version) for name, version in read_json(self._state_file).items()}
