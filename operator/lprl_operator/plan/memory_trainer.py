"""Bytes of a trainer rank by cause. Formulas: bf16 weights with the distributed optimizer take 2 + g + 12/D bytes a parameter;
activations follow Korthikanti et al. (arXiv 2205.05198), table 2, with the layer's real widths and flash attention.
"""

from fractions import Fraction

from lprl_api.derived import effective
from lprl_api.model.formats import Bf16, Fp8Block, WeightFormat
from lprl_api.model.model_shape import ModelShape
from lprl_api.model.weights import layer_weights
from lprl_api.spec.job import LowPrecisionRLJobSpec
from lprl_operator.plan.parallel import StageWeights
from lprl_operator.plan.types import Groups, Item

MASTER_BYTES, MOMENT_BYTES = 4, 8
PRECISION_AWARE_BYTES = 6
"""int16 remainder of the master and two BF16 moments."""
EXPERT_IMBALANCE = 1.5
"""Tokens the fullest expert rank receives, over the mean."""


def megatron_state(spec: LowPrecisionRLJobSpec, held: StageWeights, groups: Groups, fmt: WeightFormat) -> list[Item]:
    """Return weights, cached low-precision weights, gradients and optimizer of one Megatron rank."""
    gradient = 4 if spec.optimizer.grad_reduce_in_fp32 else 2
    items = [Item(cause="weights", bytes=2 * held.total)]
    if isinstance(fmt, Fp8Block) and spec.precision.fp8.param_gather:
        pass  # FP8 rows and columns take the two bytes of the BF16 weight
    elif not isinstance(fmt, Bf16):
        # TransformerEngine caches every linear layer in FP8; fake quantisation keeps what it selects, rounded, in BF16.
        cached = held.linear if isinstance(fmt, Fp8Block) and fmt.activations == "dynamic" else held.selected
        items.append(Item(cause="low-precision weights", bytes=2 * cached))
    items.append(Item(cause="gradients", bytes=gradient * held.total))
    if not spec.optimizer.cpu_offload:
        items.append(Item(cause="optimizer", bytes=int(_optimizer_bytes(spec, held, groups))))
    return items


def _optimizer_bytes(spec: LowPrecisionRLJobSpec, held: StageWeights, groups: Groups) -> float:
    each = PRECISION_AWARE_BYTES if spec.optimizer.precision_aware and not spec.optimizer.cpu_offload else MASTER_BYTES + MOMENT_BYTES
    return each * (held.dense / (groups.data_parallel * groups.context) + held.expert / groups.expert_data_parallel)


def optimizer_host_bytes(spec: LowPrecisionRLJobSpec, held: StageWeights, groups: Groups) -> int:
    """Return the host bytes of one rank's CPU-offloaded optimizer: FP32 masters and two moments."""
    return int(_optimizer_bytes(spec, held, groups)) if spec.optimizer.cpu_offload else 0


def checkpoint_copy_bytes(spec: LowPrecisionRLJobSpec, held: StageWeights, groups: Groups) -> int:
    """Return the host bytes of one rank's part of a checkpoint that is being written: a copy of its FP32 masters and two moments."""
    each = MASTER_BYTES + MOMENT_BYTES
    if spec.backends.trainer == "megatron":
        return int(each * (held.dense / (groups.data_parallel * groups.context) + held.expert / groups.expert_data_parallel))
    return each * held.total // groups.data_parallel


def torch_state(spec: LowPrecisionRLJobSpec, held: StageWeights, groups: Groups, cpu: bool) -> list[Item]:
    """Return the state of one torch rank: replicated on a CPU (DDP), sharded on several GPUs (FSDP2).

    Weights are FP32 masters and what the forward pass uses, of whatever values: float32 on a CPU and in shards (gradients are reduced so),
    BF16 on one GPU. Where the two differ in dtype or layout, autograd leaves gradients of its own beside the masters'.
    """
    shards = 1 if cpu else groups.data_parallel
    forward = 4 if cpu or shards > 1 else 2
    gathered = 2 * 2 * held.largest if shards > 1 else 0
    gradients = MASTER_BYTES + (0 if cpu else forward)
    items = [
        Item(cause="weights", bytes=(MASTER_BYTES + forward) * held.total // shards + gathered),
        Item(cause="gradients", bytes=gradients * held.total // shards),
    ]
    if not spec.optimizer.cpu_offload:
        items.append(Item(cause="optimizer", bytes=MOMENT_BYTES * held.total // shards))
    return items


def reference_bytes(spec: LowPrecisionRLJobSpec, held: StageWeights, groups: Groups, cpu: bool) -> int:
    """Return the bytes of the KL reference's weights on one rank; 0 when no KL is computed."""
    if not effective.reads_reference(spec.algorithm.kl):
        return 0
    if spec.backends.trainer == "megatron" and not cpu:
        return 2 * held.total
    return 4 * held.total if cpu else 2 * held.total // groups.data_parallel


def micro_batch_tokens(spec: LowPrecisionRLJobSpec, shape: ModelShape, groups: Groups) -> int:
    """Return the tokens of the largest micro-batch on one rank: a sample longer than maxTokensPerGpu is one of its own, undivided."""
    length = effective.prompt_tokens(spec.data) + effective.episode_tokens(spec.episode, spec.sampling.max_response_tokens)
    longest = min(length, effective.context_length(spec.topology.rollout, shape))
    return max(spec.topology.trainer.max_tokens_per_gpu, -(-longest // groups.context))


def activations(spec: LowPrecisionRLJobSpec, shape: ModelShape, groups: Groups, stage: int, tokens: int) -> int:
    """Return activation bytes of one rank: what is stored for the micro-batches in flight, and one live unit of layers."""
    trainer = spec.topology.trainer
    width = 4 if spec.topology.accelerator == "cpu" else 2
    layers = groups.stage_layers[stage]
    in_flight = micro_batches_in_flight(groups.pipeline, stage, trainer.virtual_pipeline)
    moe = shape.moe is not None and sum(groups.stage_layers[: stage + 1]) > shape.moe.dense_layers
    live = _layer_bytes(spec, shape, groups, tokens, moe) * width
    if trainer.recompute == "full":
        residual_shards = groups.tensor if trainer.sequence_parallel else 1
        stored = int(-(-layers // trainer.recompute_layers) * in_flight) * width * tokens * shape.hidden // residual_shards
        return stored + 2 * live * min(trainer.recompute_layers, layers)
    kept = live if trainer.recompute == "none" or moe else live * 3 // 4
    return int(kept * layers * in_flight) + live


def micro_batches_in_flight(pipeline: int, stage: int, virtual: int) -> Fraction:
    """Return for how many micro-batches a stage holds activations: whole ones, or (interleaved) some of its chunks only."""
    if virtual == 1:
        return Fraction(pipeline - stage)
    return Fraction(2 * (pipeline - stage - 1) + (virtual - 1) * pipeline + 1, virtual)


def _layer_bytes(spec: LowPrecisionRLJobSpec, shape: ModelShape, groups: Groups, tokens: int, moe: bool) -> int:
    """Elements one decoder layer keeps for its backward pass, on one rank."""
    trainer, tensor = spec.topology.trainer, groups.tensor
    residual = 6 * shape.hidden / (tensor if trainer.sequence_parallel else 1)
    heads = _attention_elements(shape) / tensor
    scores = 0.0
    if trainer.attention_backend == "unfused" or spec.backends.trainer == "torch":
        sequence = min(
            tokens, effective.prompt_tokens(spec.data) + effective.episode_tokens(spec.episode, spec.sampling.max_response_tokens)
        )
        scores = 2.5 * shape.heads * sequence / tensor
    if moe and shape.moe is not None:
        routed = shape.moe.experts_per_token * EXPERT_IMBALANCE / (tensor * groups.expert_tensor)
        mlp = routed * (2 * shape.hidden + 3 * shape.moe.expert_ffn) + 3 * shape.moe.shared_expert_ffn / tensor
    else:
        mlp = 3 * shape.ffn / tensor
    return int(tokens * (residual + heads + mlp + scores))


def _attention_elements(shape: ModelShape) -> int:
    """Elements of a token that attention keeps, all heads: queries, keys, values, and what goes into and out of the last projection."""
    if shape.layout is None:
        head = shape.mla.qk_nope_head_dim + shape.mla.qk_rope_head_dim if shape.mla else shape.head_dim
        return (shape.heads * 3 + shape.kv_heads * 2) * head
    layers = (layer_weights(shape, layer) for layer in range(shape.layers))
    return max(sum(w.cols if w.sharding == "row" else w.rows for w in layer if w.kind == "attention") for layer in layers)


def logits(spec: LowPrecisionRLJobSpec, shape: ModelShape, groups: Groups, tokens: int) -> int:
    """Return the last stage's logits: BF16 output, FP32 softmax and BF16 gradient (CPU: three times FP32)."""
    each = 12 if spec.topology.accelerator == "cpu" else 8
    return tokens * -(-shape.vocab // groups.tensor) * each
