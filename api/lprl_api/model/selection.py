"""What a format quantises: decided here and nowhere else, for weights of a shape (planner) and tensors of a checkpoint (workload)."""

from fnmatch import fnmatchcase

from lprl_api.model.formats import Bf16, Int4Group, WeightFormat
from lprl_api.spec.precision import Scope

TOGETHER = (("q_proj", "k_proj", "v_proj"), ("q_a_proj", "kv_a_proj_with_mqa"), ("gate_proj", "up_proj"))
"""Modules (by their last names) an engine runs as one matrix: quantised together or not at all."""


def quantises(fmt: WeightFormat, module: str, routed: bool) -> bool:
    """Return whether `fmt` quantises linear `module` (Hugging Face name, without `.weight`); `routed`: an expert chosen by a router.

    Whether `module` is a linear layer of the decoder at all is the caller's to know (`Weight.kind`, `kind_of`).
    """
    if isinstance(fmt, Bf16):
        return False
    if isinstance(fmt, Int4Group):
        if fmt.scope is Scope.ROUTED_EXPERTS and not routed:
            return False
        # Engines absorb kv_b_proj into the attention as a plain matrix and have no unpacking for INT4 there.
        if module.endswith(".kv_b_proj"):
            return False
    return not excluded(fmt, module)


def excluded(fmt: WeightFormat, module: str) -> bool:
    """Return whether a pattern of precision.excludeModules names `module`."""
    return not isinstance(fmt, Bf16) and any(fnmatchcase(module, pattern) for pattern in fmt.exclude_modules)
