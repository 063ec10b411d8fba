"""What a device offers a plan: usable bytes, and what a process takes before any tensor."""

from lprl_api.catalog.accelerators import GIB, Accelerator

RUNTIME_BYTES = 3 * GIB
"""CUDA context, NCCL channels, cuBLAS/TE workspaces and allocator slack of a GPU process."""
DEEP_EP_BYTES = 1 * GIB
"""NVLink and RDMA buffers of DeepEP."""
CPU_RUNTIME_BYTES = 600 * 1000 * 1000
"""Resident size of a Python process with torch and transformers loaded (measured, 0.5-0.6 GB)."""
SLEPT_ENGINE_BYTES = 1_000_000_000
"""What an engine keeps that sleeps, beside weights that came back as well: SGLang after release_memory_occupation 1.0 GB (measured on an
H200, 8B FP8)."""
ENGINE_WORK_BYTES = 4 * GIB
"""CUDA graphs, activations and sampling buffers of an engine, outside memoryFraction."""
DRIVER_RESERVE = 0.02
"""Share of the reported memory the driver keeps (an H100 of 79.6 GiB offers about 78)."""


def usable_bytes(accelerator: Accelerator, slots_per_node: int, host_bytes_per_node: int | None) -> int:
    """Return the bytes one slot may use; with cpu its share of host memory, 0 when that is unknown."""
    if accelerator.is_cpu:
        return (host_bytes_per_node or 0) // slots_per_node
    return int(accelerator.memory_bytes * (1 - DRIVER_RESERVE))


def runtime_bytes(accelerator: Accelerator) -> int:
    """Return what a trainer process takes before any tensor."""
    return CPU_RUNTIME_BYTES if accelerator.is_cpu else RUNTIME_BYTES
