"""Compiled kernels: prebuilt ones of an image, else built once per machine type with the machine's own C++ compiler, else absent.

They quantise 5 to 20 times faster than the PyTorch code on a CPU and give the same bytes; everything works without them.
LPRL_NATIVE=0 switches them off.
"""

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lprl_workload.quant import prebuilt

log = logging.getLogger(__name__)

SOURCE = Path(__file__).with_name("kernels.cpp")
FLAGS = ("-march=native", *prebuilt.FLAGS)
BUILD_TIMEOUT_S = 120
_LOCK = threading.Lock()


def kernels() -> ctypes.CDLL | None:
    """Return the quantising kernels of kernels.cpp, None where they cannot be built or are switched off."""
    library = load_library(SOURCE)
    return None if library is None else _declare(library)


def load_library(source: Path) -> ctypes.CDLL | None:
    """Return the library of a C++ file, prebuilt or built at the first call; None where that is impossible or switched off."""
    if os.environ.get("LPRL_NATIVE", "1") == "0":
        return None
    with _LOCK:
        return _load(source)


@functools.cache
def _load(source: Path) -> ctypes.CDLL | None:
    ready = prebuilt.find(source)
    if ready is not None:
        return ctypes.CDLL(str(ready))
    compiler = os.environ.get("CXX") or next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)
    if compiler is None:
        log.warning("no C++ compiler found: quantising with PyTorch, which is several times slower")
        return None
    try:
        with _cache_folder() as folder:
            return ctypes.CDLL(str(_build(compiler, source, folder)))
    except (OSError, subprocess.SubprocessError) as error:
        log.warning("C++ kernels not usable, quantising with PyTorch", extra={"compiler": compiler, "cause": str(error)})
        return None


def _build(compiler: str, source: Path, folder: Path) -> Path:
    """Compile `source` unless this machine type's build of it is in `folder`; returns the library."""
    key = hashlib.sha256("\0".join((source.read_text(), compiler, *FLAGS, _cpu())).encode()).hexdigest()[:32]
    library = folder / f"{source.stem}-{key}.so"
    if not library.exists():
        # Built aside and renamed: another process may be building the same file.
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            built = Path(scratch) / "kernels.so"
            command = [compiler, *FLAGS, "-o", str(built), str(source)]
            subprocess.run(command, check=True, capture_output=True, timeout=BUILD_TIMEOUT_S)
            os.replace(built, library)
    return library


@contextmanager
def _cache_folder() -> Iterator[Path]:
    """Yield a folder only this user can write, since code is loaded from it: the user's cache, else a temporary one.

    (A library that is loaded needs its file no longer.)
    """
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lprl" / "kernels"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        stat = folder.stat()
        usable = stat.st_uid == os.getuid() and not stat.st_mode & 0o022 and os.access(folder, os.W_OK)
    except OSError as error:
        log.info("no usable cache folder", extra={"folder": str(folder), "cause": str(error)})
        usable = False
    if usable:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="lprl-kernels-") as temporary:
        yield Path(temporary)


def _cpu() -> str:
    """Return what -march=native depends on, so that a home folder shared by different machines holds a build for each."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine() + platform.processor()
    return "".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))}))


def _declare(library: ctypes.CDLL) -> ctypes.CDLL:
    pointer, wide, number = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
    library.lprl_absmax.argtypes, library.lprl_absmax.restype = [pointer, wide], ctypes.c_uint16
    library.lprl_fp8.argtypes = [pointer, wide, wide, wide, wide, number, number, pointer, pointer, pointer, pointer]
    library.lprl_int4.argtypes = [pointer, wide, wide, wide, number, pointer, pointer, pointer, pointer, pointer]
    return library
