"""Kernels compiled ahead of time, one library per level of the instruction set, for images: a pod has no compiler.

`python -P prebuilt.py FOLDER [SOURCE.cpp]...` builds them (default: kernels.cpp beside this file); $LPRL_KERNELS names the folder later.
A library's name carries the hash of its source and flags, so that one built from other code is never loaded. All levels give
the same bytes: no contraction, no fast-math. The standard library is enough to run this file (-P: or select.py
beside it would stand for the standard library's).
"""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

ENV_FOLDER = "LPRL_KERNELS"
FLAGS = ("-O3", "-ffp-contract=off", "-std=c++17", "-shared", "-fPIC")
V3 = frozenset({"abm", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe"})
V4 = V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
LEVELS: tuple[tuple[str, str, frozenset[str]], ...] = (
    ("x86_64", "x86-64-v4", V4),
    ("x86_64", "x86-64-v3", V3),
    ("x86_64", "x86-64", frozenset()),
    ("aarch64", "armv8-a", frozenset()),
)
"""Machine, -march, and what /proc/cpuinfo must list for it; the best level of a machine first."""


def name(source: Path, level: str) -> str:
    """Return the file name of a library."""
    digest = hashlib.sha256("\0".join((source.read_text(), *FLAGS)).encode()).hexdigest()
    return f"{source.stem}-{level}-{digest[:16]}.so"


def find(source: Path) -> Path | None:
    """Return the best library in $LPRL_KERNELS for this machine that was built from `source` as it is; None without one."""
    folder = os.environ.get(ENV_FOLDER)
    if not folder:
        return None
    features = _features()
    fitting = (level for machine, level, needs in LEVELS if machine == platform.machine() and needs <= features)
    return next((path for level in fitting if (path := Path(folder) / name(source, level)).is_file()), None)


def build(source: Path, folder: Path) -> list[Path]:
    """Compile `source` for every level of this machine's architecture. Raises CalledProcessError."""
    compiler = os.environ.get("CXX") or next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)
    if compiler is None:
        raise SystemExit("no C++ compiler found: install g++, or name one in CXX")
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for machine, level, _ in LEVELS:
        if machine == platform.machine():
            made.append(folder / name(source, level))
            # Nothing of the build machine's C++ runtime is needed to load it.
            still = ("-static-libgcc", "-static-libstdc++", "-Wno-psabi")
            subprocess.run([compiler, *FLAGS, *still, f"-march={level}", "-o", str(made[-1]), str(source)], check=True)
    return made


def _features() -> frozenset[str]:
    """Return what the processor offers, in /proc/cpuinfo's words."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line.split(":", 1)[1].split() for line in lines if line.startswith(("flags", "Features"))), ()))


if __name__ == "__main__":
    sources = [Path(path) for path in sys.argv[2:]] or [Path(__file__).with_name("kernels.cpp")]
    for found in sources:
        print(*build(found, Path(sys.argv[1])), sep="\n")
