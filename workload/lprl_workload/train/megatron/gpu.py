"""TransformerEngine's modules, which train on GPUs: block FP8 products, norms inside linear layers, experts in one grouped product.

Imported where there is a GPU only. `layer_specs` is what configuration.py does with Megatron's own modules on CPUs.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import transformer_engine.pytorch as te
from megatron.core.models.gpt import GPTModel
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_decoder_block_spec
from megatron.core.transformer.transformer_block import TransformerBlockSubmodules
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor, nn
from transformer_engine.common.recipe import Float8BlockScaling

from lprl_api.errors import UserError
from lprl_api.model.formats import WeightFormat
from lprl_workload.train.megatron.latent import LatentAttention
from lprl_workload.train.megatron.mapping import Held
from lprl_workload.train.megatron.packed import LATENT_EPSILON, PackedAttention, PackedTokens

TILE = 128
"""Rows and columns that a scale of block FP8 weights is for."""
LINEAR = te.Linear | te.LayerNormLinear | te.GroupedLinear
FUSED_CHANNELS = 128
"""Of a head, at most: more are slower or not there in cuDNN's backward pass on Hopper."""
FP32_SCALES = "NVTE_FP8_BLOCK_SCALING_FP32_SCALES"
"""Read by TransformerEngine when it is imported: whether scales of block FP8 are any float32, or powers of two."""


class HeadNorm(te.RMSNorm):  # type: ignore[misc]
    """A norm of heads: every tensor rank has its own heads, and so a share of the gradient."""

    def __init__(self, config: TransformerConfig, hidden_size: int, eps: float = 1e-6, **_: Any) -> None:
        """Take what Megatron builds a norm with."""
        super().__init__(hidden_size, eps=eps, params_dtype=config.params_dtype, device=torch.cuda.current_device())
        self.weight.of_own_heads = True


class FusedAttention(PackedAttention):
    """Core attention by cuDNN's kernels over sequences that lie end to end; where samples share prompts, as on a CPU (packed.py).

    Heads whose queries and values are of two sizes (latent attention), or of more than 128 channels, are left to PyTorch.
    """

    def __init__(self, config: TransformerConfig, softmax_scale: float | None = None, **named: Any) -> None:
        """Take of what Megatron builds a core attention with what counts here."""
        super().__init__(config, softmax_scale, **named)
        ranks, channels = config.tensor_model_parallel_size, config.kv_channels
        self._fused: te.DotProductAttention | None = None
        if not config.multi_latent_attention and channels <= FUSED_CHANNELS:
            told = {"attention_dropout": config.attention_dropout, "softmax_scale": softmax_scale}
            groups = (config.num_query_groups or config.num_attention_heads) // ranks
            with _any_order():
                self._fused = te.DotProductAttention(
                    config.num_attention_heads // ranks,
                    channels,
                    num_gqa_groups=groups,
                    qkv_format="thd",
                    attn_mask_type="padding_causal",
                    **told,
                )

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, packed_seq_params: PackedTokens, **named: Any
    ) -> Tensor:
        """Return [N, 1, heads * dim] of query [N, 1, heads, dim], key and value [N, 1, groups, dim]."""
        if self._fused is None or packed_seq_params.ends is None:
            return super().forward(query, key, value, attention_mask, packed_seq_params, **named)
        starts, longest = packed_seq_params.ends
        told = {"cu_seqlens_q": starts, "cu_seqlens_kv": starts, "max_seqlen_q": longest, "max_seqlen_kv": longest}
        found: Tensor = self._fused(query[:, 0], key[:, 0], value[:, 0], **told)
        return found.unsqueeze(1)


@contextmanager
def _any_order() -> Iterator[None]:
    """Let TransformerEngine build attention whose sums may come in any order: repeatable ones take it to other kernels for long sequences.

    Those write whole matrices of scores. They are built so once; what else is computed stays as a process was set up.
    """
    before, warned = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warned)


def layer_specs(config: TransformerConfig, chunk: int | None) -> TransformerBlockSubmodules:
    """Return the specs of a chunk's layers: TransformerEngine's, with our core attention (see configuration.layer_specs)."""
    block = get_gpt_decoder_block_spec(config, use_transformer_engine=True, normalization=config.normalization, vp_stage=chunk)
    for layer in block.layer_specs:
        submodules, attention = layer.submodules, layer.submodules.self_attention.submodules
        attention.core_attention = FusedAttention
        if config.multi_latent_attention:
            submodules.self_attention.module = LatentAttention
        elif config.qk_layernorm:
            attention.q_layernorm = attention.k_layernorm = HeadNorm
    return block


def finish(chunk: GPTModel, latent: bool) -> None:
    """Set on a built chunk what Megatron's specs cannot say: the epsilon of norms of what latent attention compresses."""
    for layer in chunk.decoder.layers if latent else ():
        for name in ("linear_q_up_proj", "linear_kv_up_proj"):
            projection = getattr(layer.self_attention, name, None)
            if isinstance(projection, te.LayerNormLinear):
                projection.eps = LATENT_EPSILON


def multiply_in_fp8(chunks: Sequence[nn.Module], held: tuple[Held, ...], chosen: tuple[Held, ...], fmt: WeightFormat) -> None:
    """Leave block FP8 products to the layers that `fmt` selects; raises UserError where TransformerEngine would scale otherwise than `fmt`.

    Args:
        chunks: of the rank, whose layers all multiply in FP8 unless told.
        held: what the rank has.
        chosen: what of it `fmt` selects.
        fmt: block FP8.

    """
    powers = getattr(fmt, "scale_format", "float32") == "ue8m0"
    if Float8BlockScaling().fp8_quant_fwd_weight.power_2_scale != powers:
        what = f"precision.fp8.scaleFormat: TransformerEngine's scales are {'float32' if powers else 'powers of two'} in this process"
        raise UserError(what, f"set {FP32_SCALES}={int(not powers)} in its environment")
    for item in chosen:
        _check_parts(item)
    taken = {id(_module(chunks, item)) for item in chosen}
    others = {id(m): m for item in held if isinstance(m := _module(chunks, item), LINEAR)}
    for key, module in others.items():
        if key not in taken:
            module.forward = partial(_in_its_own_dtype, module.forward)


def add_to_masters(chunks: Sequence[nn.Module], gradients: Mapping[tuple[int, str], Tensor]) -> None:
    """Let weights' gradients be added to float32 `gradients`, by chunk and name, inside the product that makes them.

    So no BF16 gradient is written, rounded and read again. Parameters that are no layer's weights keep autograd's way.
    """
    for chunk, model in enumerate(chunks):
        for owner, module in model.named_modules():
            if not isinstance(module, LINEAR):
                continue
            weights = {f"{owner}.{name}": getattr(module, name) for name in _weights(module)}
            places = {name: gradients.get((chunk, name)) for name in weights}
            if all(place is not None and place.is_cuda for place in places.values()):
                module.fuse_wgrad_accumulation = True
                for name, weight in weights.items():
                    weight.main_grad = places[name]


def _weights(module: nn.Module) -> tuple[str, ...]:
    """Return the names of a layer's weights: experts in one product have one each."""
    return tuple(f"weight{n}" for n in range(module.num_gemms)) if isinstance(module, te.GroupedLinear) else ("weight",)


def _module(chunks: Sequence[nn.Module], held: Held) -> nn.Module:
    return chunks[held.chunk].get_submodule(held.name.rpartition(".")[0])


def _in_its_own_dtype(forward: Any, *given: Any, **named: Any) -> Any:
    with te.fp8_autocast(enabled=False):
        return forward(*given, **named)


def _check_parts(held: Held) -> None:
    """Raise UserError where a block of a fused parameter would scale rows of two checkpoint tensors together."""
    for part in held.cutting.parts:
        if part.row % TILE or (part.runs > 1 and (part.step % TILE or part.run % TILE)):
            what = f"precision.training fp8: TransformerEngine scales {TILE} rows of {held.name} together, across those of {part.name}"
            raise UserError(what, "use fp8-qat, a smaller tensor size, or backends.trainer torch")
