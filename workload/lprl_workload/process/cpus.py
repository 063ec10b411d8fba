"""The CPUs of a process."""

import os
from pathlib import Path

CPU_LIMIT_FILE = Path("/sys/fs/cgroup/cpu.max")


def available_cpus() -> int:
    """Return the CPUs this process may use: its affinity, and its container's limit where there is one."""
    cpus = len(os.sched_getaffinity(0))
    try:
        quota, period = CPU_LIMIT_FILE.read_text().split()
    except (FileNotFoundError, ValueError, PermissionError):
        return cpus
    return cpus if quota == "max" else max(1, min(cpus, int(quota) // int(period)))
