"""Whether a tensor goes through the Triton kernels: on an NVIDIA GPU they were compiled for, where Triton works, unless switched off.

LPRL_TRITON=0 switches them off. Everything works without them, and gives the same bytes.
"""

import functools
import importlib.util
import logging
import os

import torch
from torch import Tensor

log = logging.getLogger(__name__)

LEAST_CAPABILITY = (8, 9)
"""Of a GPU: older ones do not convert to E4M3 in hardware."""


def usable(*tensors: Tensor) -> bool:
    """Return whether all `tensors` can go through the kernels: on one GPU, and none of them empty."""
    first = tensors[0]
    if not all(t.is_cuda and t.device == first.device and t.numel() for t in tensors):
        return False
    return usable_device(first.device)


def usable_device(device: torch.device) -> bool:
    """Return whether the kernels run on a GPU."""
    return switched_on() and _works(device)


def switched_on() -> bool:
    """Return whether nobody has switched the kernels off."""
    return os.environ.get("LPRL_TRITON", "1") != "0"


@functools.cache
def _works(device: torch.device) -> bool:
    """Return whether a kernel can be compiled and runs; a warning says once why not."""
    if torch.version.cuda is None or torch.cuda.get_device_capability(device) < LEAST_CAPABILITY:
        return False
    if importlib.util.find_spec("triton") is None:
        log.warning("Triton is not installed: quantising with PyTorch, which is many times slower on a GPU")
        return False
    try:
        from lprl_workload.quant.triton import sums

        return int(sums.checksum(torch.ones(1, dtype=torch.uint8, device=device))) != 0
    except Exception as error:  # whatever a compiler, a driver or a version of Triton can say
        log.warning("Triton kernels not usable, quantising with PyTorch", extra={"device": str(device), "cause": str(error)})
        return False
