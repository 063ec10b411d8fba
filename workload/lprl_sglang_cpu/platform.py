"""SGLang's platform for CPUs: plain PyTorch kernels, and our quantizer's arithmetic for quantised weights."""

from typing import Any

import torch
from sglang.srt.platforms.cpu import CpuDeviceMixin
from sglang.srt.platforms.device_mixin import PlatformEnum
from sglang.srt.platforms.interface import PlatformCapabilities, SRTPlatform

CACHE_TOKENS = 32768
"""KV cache where neither --max-total-tokens nor --mem-fraction-static says how large: SGLang would take most of the machine's memory."""


class CpuPlatform(CpuDeviceMixin, SRTPlatform):
    """See SGLang's SRTPlatform: every method answers a question its server asks while it starts. It needs `--device cpu`."""

    _enum = PlatformEnum.OOT
    capabilities = PlatformCapabilities()
    supported_quantization = ("fp8", "compressed-tensors")

    def apply_server_args_defaults(self, server_args: Any) -> None:
        """Compute in float32 unless --dtype says otherwise, as the torch engine does on a CPU."""
        if server_args.dtype == "auto":
            server_args.dtype = "float32"
        if server_args.max_total_tokens is None and server_args.mem_fraction_static is None:
            server_args.max_total_tokens = CACHE_TOKENS

    def get_default_attention_backend(self) -> str:
        """Scaled dot products of PyTorch."""
        return "torch_native"

    def get_dispatch_key_name(self) -> str:
        """Norms, rotary embeddings and activations as their classes write them in PyTorch."""
        return "native"

    def is_pin_memory_available(self, device: Any = None) -> bool:
        """There is no other memory to copy to."""
        return False

    def init_backend(self) -> None:
        """Once in each worker process: what has no seam of its own."""
        from sglang.srt.mem_cache.pool_host import common

        from lprl_sglang_cpu.latent import install

        # Routed experts are returned through a host buffer, which is registered with CUDA otherwise.
        common.ALLOC_MEMORY_FUNCS["cpu"] = _plain_memory
        install()

    def get_quantization_config(self, quantization: str) -> type | None:
        """Return the class that reads a `quantization_config` of this method; None: SGLang's own."""
        match quantization:
            case "fp8":
                from lprl_sglang_cpu.fp8 import CpuFp8Config

                return CpuFp8Config
            case "compressed-tensors" | "compressed_tensors":
                from lprl_sglang_cpu.compressed import CpuCompressedConfig

                return CpuCompressedConfig
        return None


def _plain_memory(dims: Any, dtype: torch.dtype, *args: Any, **kwargs: Any) -> torch.Tensor:
    return torch.empty(dims, dtype=dtype)
