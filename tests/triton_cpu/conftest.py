"""The kernels in Triton's interpreter, in the environment of `make setup-megatron`, which has Triton; collected nowhere else."""

import os
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch

os.environ["TRITON_INTERPRET"] = "1"


def _convert_as_hardware_does() -> None:
    """Have PyTorch convert to E4M3 and BF16: the interpreter (3.7 to 3.9) loses a carry there and cuts off here, where a GPU rounds."""
    from triton import language
    from triton.runtime import interpreter

    own = interpreter._convert_float

    targets = {language.float8e4nv: (torch.float8_e4m3fn, torch.uint8), language.bfloat16: (torch.bfloat16, torch.uint16)}

    def convert(values: Any, source: Any, target: Any, rounding: Any) -> Any:
        if source != language.float32 or target not in targets:
            return own(values, source, target, rounding)
        kind, raw = targets[target]
        return torch.from_numpy(np.array(values, dtype=np.float32)).to(kind).view(raw).numpy()

    interpreter._convert_float = convert


collect_ignore_glob = [] if find_spec("triton") is not None else ["test_*.py"]
if not collect_ignore_glob:
    _convert_as_hardware_does()
