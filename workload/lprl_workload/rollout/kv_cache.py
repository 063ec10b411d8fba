"""What a KV cache takes, and may take."""

import torch

from lprl_api.model.model_shape import ModelShape


def bytes_per_token(shape: ModelShape, element_bytes: int) -> int:
    """Return the bytes one position of one row takes in the cache, over all layers.

    transformers caches MLA's keys and values decompressed, so every head counts.
    """
    if shape.mla:
        channels = shape.heads * (shape.mla.qk_nope_head_dim + shape.mla.qk_rope_head_dim + shape.mla.v_head_dim)
    else:
        channels = 2 * shape.kv_heads * shape.head_dim
    return shape.layers * channels * element_bytes


def free_cache_bytes(device: torch.device, fraction: float) -> int:
    """Return what the cache may take: `fraction` of the device's free memory, 2 GiB on a CPU."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] * fraction)
    return 2 * 1024**3
