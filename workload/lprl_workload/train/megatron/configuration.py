"""Model shape, config.json and layout -> Megatron's configuration and layer specs."""

from importlib import import_module
from typing import Any

import torch
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_decoder_block_spec
from megatron.core.transformer.identity_op import IdentityOp
from megatron.core.transformer.transformer_block import TransformerBlockSubmodules
from megatron.core.transformer.transformer_config import MLATransformerConfig, TransformerConfig
from torch import Tensor
from torch.nn import functional

from lprl_api.errors import UserError
from lprl_api.model.formats import Fp8Block, WeightFormat
from lprl_api.model.model_shape import ModelShape
from lprl_api.spec.topology import TrainerLayout
from lprl_workload.hf.model import compute_dtype
from lprl_workload.train.megatron.families import family_of
from lprl_workload.train.megatron.families.family import Config, Fields
from lprl_workload.train.megatron.latent import LatentAttention
from lprl_workload.train.megatron.packed import HeadNorm, LatentNorm, PackedAttention, RmsNorm
from lprl_workload.train.megatron.stages import Stages
from lprl_workload.train.megatron.table import Modules
from lprl_workload.train.mesh import TrainMesh


def modules_on(device: torch.device) -> Modules:
    """Return whose modules layers are made of: Megatron's own on a CPU, TransformerEngine's elsewhere."""
    return "local" if device.type == "cpu" else "te"


def multiplies_in_fp8(fmt: WeightFormat | None, device: torch.device) -> bool:
    """Return whether TransformerEngine quantises weights and inputs of a trainer in `fmt`; else our own functions do, beside the model."""
    return modules_on(device) == "te" and isinstance(fmt, Fp8Block) and fmt.activation_group is not None


def transformer_config(
    shape: ModelShape,
    config: Config,
    mesh: TrainMesh,
    stages: Stages,
    layout: TrainerLayout,
    device: torch.device,
    fmt: WeightFormat | None,
) -> TransformerConfig:
    """Return Megatron's configuration of a model on these ranks; raises UserError for what this trainer does not train."""
    if config["hidden_act"] != "silu":
        what = f"config.json: hidden_act {config['hidden_act']}: backends.trainer megatron trains silu only"
        raise UserError(what, "use backends.trainer torch")
    dtype = compute_dtype(device)
    made = MLATransformerConfig if shape.mla else TransformerConfig
    return made(
        **family_of(shape).fields(shape, config),
        **_ranks(mesh, stages, layout),
        **(_experts(mesh, modules_on(device)) if shape.moe else {}),
        **({"fp8": "e4m3", "fp8_recipe": "blockwise"} if multiplies_in_fp8(fmt, device) else {}),
        **_recompute(layout, shape.layers // mesh.pp),
        params_dtype=dtype,
        pipeline_dtype=dtype,
        bf16=dtype == torch.bfloat16,
        normalization="RMSNorm",
        gated_linear_unit=True,
        activation_func=functional.silu,
        add_bias_linear=False,
        attention_dropout=layout.attention_dropout,
        hidden_dropout=layout.hidden_dropout,
        # Every weight is read from a folder.
        perform_initialization=False,
        use_cpu_initialization=device.type == "cpu",
        gradient_accumulation_fusion=False,
        # One kernel for gate times up, compiled where there is a compiler anyway: Triton's.
        bias_activation_fusion=device.type != "cpu",
    )


def _ranks(mesh: TrainMesh, stages: Stages, layout: TrainerLayout) -> Fields:
    uneven = len(set(stages.layers)) > 1
    interleaved = mesh.vpp > 1
    return {
        "tensor_model_parallel_size": mesh.tp,
        "pipeline_model_parallel_size": mesh.pp,
        "virtual_pipeline_model_parallel_size": mesh.vpp if interleaved else None,
        "context_parallel_size": mesh.cp,
        "num_layers_in_last_pipeline_stage": stages.layers[-1] if uneven else None,
        "sequence_parallel": layout.sequence_parallel and mesh.tp > 1,
        # Micro-batches are as long as their samples.
        "variable_seq_lengths": mesh.pp > 1,
        # It asks for this one then, with experts or without: ranks have different numbers of tokens.
        "moe_token_dispatcher_type": "alltoall",
        # Interleaved stages with batched calls that are waited for train wrongly, and say nothing (measured, 0.19.2).
        "overlap_p2p_comm": interleaved,
        "batch_p2p_comm": not interleaved,
    }


def _recompute(layout: TrainerLayout, most: int) -> Fields:
    match layout.recompute:
        case "none":
            return {}
        case "selective":
            return {"recompute_granularity": "selective"}
        case "full":
            at_once = min(layout.recompute_layers, most)
            return {"recompute_granularity": "full", "recompute_method": "uniform", "recompute_num_layers": at_once}


def _experts(mesh: TrainMesh, modules: Modules) -> Fields:
    return {
        "expert_model_parallel_size": mesh.ep,
        "expert_tensor_parallel_size": mesh.etp,
        "moe_router_load_balancing_type": "none",
        "moe_router_dtype": "fp32",
        "moe_grouped_gemm": modules == "te",
    }


def layer_specs(config: TransformerConfig, chunk: int | None) -> TransformerBlockSubmodules:
    """Return the specs of a chunk's layers: Megatron's own linear layers, our norms and core attention (on GPUs: gpu.layer_specs).

    Args:
        config: of the model; its stage is the calling rank's.
        chunk: number of the model chunk where stages have several, else None.

    """
    block = get_gpt_decoder_block_spec(config, use_transformer_engine=False, normalization=config.normalization, vp_stage=chunk)
    block.layer_norm = RmsNorm
    for layer in block.layer_specs:
        submodules, attention = layer.submodules, layer.submodules.self_attention.submodules
        submodules.input_layernorm = submodules.pre_mlp_layernorm = RmsNorm
        attention.core_attention = PackedAttention
        if config.multi_latent_attention:
            submodules.self_attention.module = LatentAttention
            attention.q_layernorm, attention.kv_layernorm = LatentNorm if config.q_lora_rank else IdentityOp, LatentNorm
        elif config.qk_layernorm:
            attention.q_layernorm = attention.k_layernorm = HeadNorm
    return block


def rotary_frequencies(config: Any) -> Tensor:
    """Return the inverse frequencies [dim / 2] of a model's rotary embedding, float32 on the CPU, as its class computes them.

    Raises UserError where they depend on how long a sequence is, or come with a factor of their own.
    """
    parameters = config.rope_parameters
    kind = parameters.get("rope_type", "default")
    module = import_module(type(config).__module__.replace("configuration_", "modeling_"))
    (rotary_class,) = (value for name, value in vars(module).items() if name.endswith("RotaryEmbedding") and "Vision" not in name)
    rotary = rotary_class(config)
    if kind not in ("default", "linear", "llama3", "yarn") or rotary.attention_scaling != 1.0:
        fits = "default, linear, llama3, and yarn where it leaves queries and keys as they are"
        what = f"config.json: rope_parameters.rope_type {kind}: backends.trainer megatron trains {fits}"
        raise UserError(what, "use backends.trainer torch")
    found: Tensor = rotary.inv_freq
    return found.float()
