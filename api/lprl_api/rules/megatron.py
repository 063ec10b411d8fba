"""Rules on what Megatron's layouts need, and on what its trainer does on CPU processes, where it runs so far."""

from collections.abc import Iterator
from itertools import accumulate

from lprl_api.derived.stages import stage_layers
from lprl_api.field_error import FieldError, wrong
from lprl_api.model.weights import layer_weights
from lprl_api.rules.case import Case, Rule, divisors
from lprl_api.spec.precision import Training

_INDEXER = "self_attn.indexer."
_OVER_SEQUENCES = (_INDEXER, "linear_attn.")

FP8_BLOCK = 128
"""Rows and columns of a weight that share a scale."""


def _virtual(case: Case) -> Iterator[FieldError]:
    trainer = case.spec.topology.trainer
    chunks = trainer.virtual_pipeline
    if not case.megatron or chunks == 1:
        return
    path = "topology.trainer.virtualPipeline"
    if trainer.pipeline == 1:
        yield wrong(path, chunks, "1 with pipeline 1, or pipeline above 1")
        return
    if trainer.last_stage_layers is not None:
        yield wrong(path, chunks, "1 with lastStageLayers, or equal stages: uneven ones were not run with several chunks")
        return
    stages = stage_layers(case.shape.layers, trainer.pipeline, None) if case.shape is not None else None
    if stages is not None and stages[0] % chunks:
        yield wrong(path, chunks, f"a divisor of the {stages[0]} layers of a stage: {divisors(stages[0])}")


def _choices(case: Case) -> Iterator[FieldError]:
    """Layers that share an indexer's choice of keys lie in the stage, and chunk, of the layer that chooses."""
    shape, trainer = case.shape, case.spec.topology.trainer
    if not case.megatron or shape is None:
        return
    choosing = [n for n in range(shape.layers) if any(w.module.startswith(_INDEXER) for w in layer_weights(shape, n))]
    stages = stage_layers(shape.layers, trainer.pipeline, trainer.last_stage_layers)
    if not choosing or stages is None or any(count % trainer.virtual_pipeline for count in stages):
        return
    each = [count // trainer.virtual_pipeline for count in stages] * trainer.virtual_pipeline
    for first in list(accumulate(each, initial=0))[1:-1]:
        if first not in choosing:
            fits = f"each stage and chunk to begin with a layer whose own indexer chooses keys: layer {first} takes an earlier one's"
            yield wrong("topology.trainer.pipeline", trainer.pipeline, fits)
            return


def _whole_sequences(case: Case) -> Iterator[FieldError]:
    """Layers with a state, and indexers, run over whole sequences."""
    shape, context = case.shape, case.spec.topology.trainer.context
    if not case.megatron or shape is None or context == 1:
        return
    modules = (weight.module for layer in range(shape.layers) for weight in layer_weights(shape, layer))
    if any(module.startswith(_OVER_SEQUENCES) for module in modules):
        yield wrong("topology.trainer.context", context, f"1: layers of {shape.architecture} need whole sequences")


def _on_cpu(case: Case) -> Iterator[FieldError]:
    if not case.megatron or case.accelerator is None or not case.accelerator.is_cpu:
        return
    trainer, spec = case.spec.topology.trainer, case.spec
    if trainer.recompute == "selective":
        yield wrong("topology.trainer.recompute", "selective", "none or full with accelerator cpu")
    if trainer.hidden_dropout and trainer.tensor > 1:
        need = "0 with tensor above 1 and accelerator cpu: ranks that share a token would drop different parts of it"
        yield wrong("topology.trainer.hiddenDropout", trainer.hidden_dropout, need)
    if spec.precision.fp8.param_gather:
        yield wrong("precision.fp8.paramGather", True, "false with accelerator cpu: it is TransformerEngine's, which needs a GPU")
    if spec.optimizer.precision_aware:
        yield wrong("optimizer.precisionAware", True, "false with accelerator cpu: it is TransformerEngine's, which needs a GPU")


def _heads_in_fp8(case: Case) -> Iterator[FieldError]:
    """TransformerEngine quantises query, key and value as one matrix: what an engine gets must be cut into the same blocks."""
    shape, on_gpu = case.shape, case.accelerator is not None and not case.accelerator.is_cpu
    if not (case.megatron and on_gpu and case.spec.precision.training is Training.FP8) or shape is None or shape.mla is not None:
        return
    if shape.head_dim % FP8_BLOCK:
        why = f"TransformerEngine scales {FP8_BLOCK} rows of query, key and value together, and heads have {shape.head_dim}"
        yield wrong("precision.training", "fp8", f"fp8-qat, or backends.trainer torch: {why}")


RULES: tuple[Rule, ...] = (_virtual, _whole_sequences, _choices, _on_cpu, _heads_in_fp8)
