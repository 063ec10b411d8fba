"""The accelerator table: what a row of spec.topology.accelerator means.

H100-80GB and H200-141GB agree with what those devices offered (about 78 and 139 GiB); the other rows are nominal figures of the
sources named and were not read from a device.
"""

from dataclasses import dataclass

MIB = 1 << 20
GIB = 1 << 30


@dataclass(frozen=True)
class Accelerator:
    """Facts of one device type."""

    name: str
    memory_bytes: int
    """Device memory the driver reports (nvidia-smi `memory.total`); 0 for cpu, where host memory counts."""
    sm: int
    """CUDA compute capability times 10 (90 is 9.0); 0 for cpu."""
    gpus_per_node: int
    """Devices of a usual node; spec.topology.gpusPerNode overrides it."""
    host_bytes: int
    """Host memory of a usual node; 0 when there is no usual one. Reported against, not enforced."""
    source: str

    @property
    def is_cpu(self) -> bool:
        """True for the row without a device."""
        return self.sm == 0

    @property
    def has_fp8(self) -> bool:
        """True where matrix units take FP8 operands (compute capability 8.9 or newer)."""
        return self.sm >= 89

    @property
    def is_blackwell(self) -> bool:
        """True where TransformerEngine runs block FP8 as MXFP8, with power-of-two scales only."""
        return self.sm >= 100


_SMI = "nvidia-smi memory.total"
_CC = "developer.nvidia.com/cuda-gpus (compute capability)"
_DGX = "NVIDIA DGX datasheets (GPUs and host memory of a node)"


def _row(name: str, mib: int, sm: int, gpus: int = 8, host_gib: int = 2048, source: str = f"{_SMI}; {_CC}; {_DGX}") -> Accelerator:
    return Accelerator(name, mib * MIB, sm, gpus, host_gib * GIB, source)


ACCELERATORS: dict[str, Accelerator] = {
    row.name: row
    for row in (
        _row("A100-40GB", 40960, 80, host_gib=1024),
        _row("A100-80GB", 81920, 80),
        _row("L40S-48GB", 46068, 89, host_gib=1024, source=f"{_SMI}; {_CC}; NVIDIA L40S datasheet"),
        _row("H20-96GB", 97871, 90, source=f"{_SMI}; {_CC}"),
        _row("H100-80GB", 81559, 90),
        _row("H800-80GB", 81559, 90, source=f"{_SMI}; {_CC}"),
        _row("H200-141GB", 143771, 90),
        _row("GH200-96GB", 97871, 90, gpus=1, host_gib=480, source=f"{_SMI}; {_CC}; GH200 datasheet"),
        _row("B200-180GB", 183359, 100),
        _row("GB200-186GB", 189471, 100, gpus=4, host_gib=960, source=f"{_SMI}; {_CC}; GB200 NVL72 datasheet (two boards a node)"),
        Accelerator("cpu", 0, 0, 1, 0, "one slot is one process; its memory is host memory"),
    )
}


def accelerator_names() -> str:
    """Return the rows as a list for messages."""
    return ", ".join(ACCELERATORS)
