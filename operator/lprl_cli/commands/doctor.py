"""`lprl doctor`: what this machine has for a local run, and what is missing."""

import argparse
import os
import shutil
import socket
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from lprl_cli import exits

PACKAGES = ("torch", "transformers", "safetensors", "ray", "compressed-tensors", "math-verify", "pyarrow", "tensorboard")
FREE_BYTES = 4 * 2**30
MEMORY_BYTES = 4 * 2**30


def epilog(_: str) -> str:
    """Examples for --help."""
    return "examples:\n  lprl doctor\n\nExit code 3 when something a local run needs is missing."


def add_arguments(_: argparse.ArgumentParser, __: str) -> None:
    """No arguments."""


def checks() -> list[tuple[bool, str, str]]:
    """Return (fine, what, remedy or detail) rows."""
    version = ".".join(map(str, sys.version_info[:3]))
    found = [(sys.version_info >= (3, 11), f"Python {version}", "needs 3.11 or newer")]
    for name in PACKAGES:
        try:
            found.append((True, f"{name} {metadata.version(name)}", ""))
        except metadata.PackageNotFoundError:
            found.append((False, name, "pip install '.[cpu]' in the checkout"))
    free = shutil.disk_usage(".").free
    found.append((free > FREE_BYTES, f"{free / 2**30:.0f} GiB free here", "the demo needs 4 GiB"))
    memory = _available_memory()
    if memory is not None:
        found.append((memory > MEMORY_BYTES, f"{memory / 2**30:.0f} GiB memory available", "the demo needs 4 GiB"))
    found.append((sys.platform == "linux", f"{sys.platform}, {os.cpu_count()} CPUs", "local runs are made for Linux"))
    found.append((_loopback(), "loopback addresses can be bound", "Ray's nodes use 127.x.y.z; allow binding to it"))
    found.append((os.access("/tmp", os.W_OK), "/tmp is writable", "Ray puts its sockets below /tmp"))
    return found


def _available_memory() -> int | None:
    path = Path("/proc/meminfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _loopback() -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.64.1.1" if sys.platform == "linux" else "127.0.0.1", 0))
        except OSError:
            return False
    return True


def _gpus() -> str:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return "no NVIDIA GPU (not needed for local runs)"
    asked = [tool, "--query-gpu=name,memory.total", "--format=csv,noheader"]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=30, check=False)
    return "; ".join(done.stdout.strip().splitlines()) or "nvidia-smi found no GPU"


def run(_: argparse.Namespace) -> int:
    """Print every check."""
    found = checks()
    for fine, what, remedy in found:
        print(f"{'ok     ' if fine else 'MISSING'}  {what}{'' if fine or not remedy else f'  -> {remedy}'}")
    print(f"info     {_gpus()}")
    return exits.OK if all(fine for fine, _, _ in found) else exits.USER_ERROR
