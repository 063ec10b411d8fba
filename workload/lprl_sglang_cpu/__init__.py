"""A platform plugin that makes an unmodified SGLang serve on a CPU with the arithmetic of our quantizer: its reference engine."""

PLATFORM = "lprl-cpu"
"""What SGLANG_PLATFORM must say: the plugin never chooses itself."""


def activate() -> str | None:
    """Return the platform class for SGLang's plugin loader; None unless SGLANG_PLATFORM asks for it, or where a GPU is usable."""
    import os

    import torch

    if os.environ.get("SGLANG_PLATFORM") != PLATFORM or torch.cuda.is_available():
        return None
    # The server's processes inherit it. What SGLang compiles (routing) would take a C++ compiler and, on a busy machine, minutes.
    os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
    return "lprl_sglang_cpu.platform:CpuPlatform"
