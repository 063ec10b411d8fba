"""A rank's part of a model: its chunks, filled from a Hugging Face folder, and one pass of micro-batches through the pipeline."""

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.models.gpt import GPTModel
from megatron.core.pipeline_parallel import get_forward_backward_func
from megatron.core.tensor_parallel.mappings import reduce_from_tensor_model_parallel_region
from torch import Tensor, nn

from lprl_api.errors import UserError
from lprl_api.model.formats import WeightFormat
from lprl_api.model.model_shape import ModelShape
from lprl_api.spec.topology import TrainerLayout
from lprl_workload.hf.model import model_config
from lprl_workload.hf.naming import naming_of
from lprl_workload.train.megatron.batches import Staged
from lprl_workload.train.megatron.configuration import layer_specs, modules_on, rotary_frequencies, transformer_config
from lprl_workload.train.megatron.cpu import on_device
from lprl_workload.train.megatron.families import family_of
from lprl_workload.train.megatron.hybrid import use_hybrid_layers
from lprl_workload.train.megatron.indexed import check_choices, use_indexers
from lprl_workload.train.megatron.mapping import Mapping
from lprl_workload.train.megatron.packed import PackedRotary, PackedTokens
from lprl_workload.train.megatron.ranks import Ranks
from lprl_workload.train.megatron.stages import Stages
from lprl_workload.train.megatron.table import Modules
from lprl_workload.train.megatron.vocab import VocabHead
from lprl_workload.train.megatron.weights import Parameters, load, stored

# Whoever trains with this cannot change that the library has a newer class of models.
logging.getLogger("megatron.core.models.gpt.gpt_model").setLevel(logging.ERROR)
FP8_TOKENS = 16
"""Rows that TransformerEngine's FP8 products come in."""
Loss = Callable[[Tensor, Tensor, int], tuple[Tensor, Any]]
"""(log-probabilities [T], entropies [T], number of the micro-batch) -> (scalar to be propagated back, what is kept of it)."""


class StagedModel:
    """The policy of one rank."""

    def __init__(
        self,
        folder: Path,
        shape: ModelShape,
        stages: Stages,
        layout: TrainerLayout,
        ranks: Ranks,
        filled: bool = True,
        fmt: WeightFormat | None = None,
    ) -> None:
        """Build this rank's chunks of `folder`'s model, in the device's own dtype; unless `filled`, weights are what memory held.

        `fmt` is what TransformerEngine's products are computed in; None, as BF16: in the weights' own dtype.
        """
        modules, mesh = modules_on(ranks.device), ranks.mesh
        self.mapping, self._ranks = Mapping(shape, mesh, stages, modules, naming_of(folder)), ranks
        written = model_config(folder, shape)
        self._config = transformer_config(shape, written.to_dict(), mesh, stages, layout, ranks.device, fmt)
        frequencies = rotary_frequencies(written).to(ranks.device)
        with on_device(ranks.device):
            self.chunks = [self._chunk(shape, written, stages, frequencies, chunk) for chunk in range(mesh.vpp)]
        self.parameters = _by_name(self.chunks)
        _check(self.mapping, ranks.rank, self.parameters)
        if filled:
            self.fill(folder, self.parameters)
        padded = self.mapping.padded_vocab // mesh.tp
        first = padded * ranks.place.tensor
        rows = max(0, min(shape.vocab, first + padded) - first)
        self._head = VocabHead(first, rows, ranks.tensor_group, self._config.sequence_parallel)

    def fill(self, folder: Path, values: Parameters) -> None:
        """Read this rank's part of a folder's weights into `values`: the parameters themselves, or their masters."""
        load(stored(folder, self.mapping, self._ranks.rank), self.mapping, self._ranks.rank, values)

    @torch.no_grad()
    def freeze(self) -> None:
        """Make it a reference: BF16 weights, no gradients."""
        for parameter in self.parameters.values():
            if isinstance(parameter, nn.Parameter):
                parameter.requires_grad_(False).copy_(parameter.to(torch.bfloat16))

    def _chunk(self, shape: ModelShape, written: Any, stages: Stages, frequencies: Tensor, chunk: int) -> GPTModel:
        stage, numbered = self._ranks.place.stage, chunk if self._ranks.mesh.vpp > 1 else None
        specs, finish = _building(self.mapping.modules)
        block = specs(self._config, numbered)
        _use_own_layers(block, self.mapping, written, stages.chunk(stage, chunk), frequencies)
        model = GPTModel(
            config=self._config,
            transformer_layer_spec=block,
            vocab_size=self.mapping.padded_vocab,
            max_sequence_length=shape.max_positions,
            pre_process=stages.embeds(stage, chunk),
            post_process=stages.ends(stage, chunk),
            position_embedding_type="rope",
            share_embeddings_and_output_weights=shape.tied_embeddings,
            vp_stage=numbered,
        )
        latent = shape.mla is not None
        finish(model, latent)
        for module in [layer.self_attention for layer in model.decoder.layers] if latent else [model]:
            module.rotary_pos_emb = PackedRotary(frequencies, latent)
        return model

    @property
    def context(self) -> int:
        """How many ranks a sequence is cut over."""
        return self._ranks.mesh.cp

    @property
    def token_multiple(self) -> int:
        """What a micro-batch's tokens are a multiple of: sequence-parallel ranks have equally many, and FP8 products need multiples."""
        return (self._ranks.mesh.tp if self._config.sequence_parallel else 1) * (FP8_TOKENS if self._config.fp8 else 1)

    def run(self, batches: Sequence[Staged], temperature: float, loss: Loss | None = None, entropy_gradient: bool = False) -> list[Any]:
        """Run micro-batches through the pipeline, on all ranks together.

        Returns, on ranks of the last stage, (log-probabilities, entropies) of each micro-batch, or what `loss` keeps of it; elsewhere
        nothing. With a loss, gradients are added to those of the parameters.
        """
        with on_device(self._ranks.device), torch.set_grad_enabled(loss is not None):
            found: list[Any] = get_forward_backward_func()(
                forward_step_func=_Step(self, temperature, loss, entropy_gradient, len(batches)),
                data_iterator=[iter(enumerate(batches)) for _ in self.chunks],
                model=self.chunks,
                num_microbatches=len(batches),
                seq_length=1,  # stages tell each other how long a micro-batch is
                micro_batch_size=1,
                forward_only=loss is None,
                collect_non_loss_data=loss is None,
            )
        return found

    def forward(self, chunk: GPTModel, staged: Staged, temperature: float, entropy_gradient: bool) -> Any:
        """Run one micro-batch through one chunk: hidden states [N, 1, H], or of the last chunk (log-probabilities, entropies) [2, T]."""
        batch = staged.mine
        packed = PackedTokens(layout=batch.layout, positions=batch.positions[0], cut=staged.cut)

        def head(hidden_states: Tensor, output_layer: Any, output_weight: Tensor | None, **_: Any) -> Tensor:
            weight = output_layer.weight if output_weight is None else output_weight
            # One tensor: schedules take no more than that.
            found = torch.stack(self._head(hidden_states, weight, batch, temperature, entropy_gradient))
            return found if staged.answered is None else _together(found, staged.answered, len(staged.asked.targets))

        return chunk(batch.input_ids, batch.positions, None, packed_seq_params=packed, output_processor=head)


def _together(found: Tensor, answered: Tensor, count: int) -> Tensor:
    """Return what the ranks of a context group found of `count` targets, on each of them; a rank has a share of the gradient."""
    mine = torch.zeros((2, count), device=found.device).index_copy(1, answered, found)
    whole: Tensor = reduce_from_tensor_model_parallel_region(mine, group=parallel_state.get_context_parallel_group())
    return whole


def _building(modules: Modules) -> tuple[Callable[..., Any], Callable[..., None]]:
    """Return what makes a chunk's layer specs, and what is done to a built chunk."""
    if modules == "local":
        return layer_specs, lambda chunk, latent: None
    from lprl_workload.train.megatron import gpu

    return gpu.layer_specs, gpu.finish


def _use_own_layers(block: Any, mapping: Mapping, written: Any, layers: Sequence[int], frequencies: Tensor) -> None:
    """Put into a chunk's specs the modules that neither Megatron nor TransformerEngine has for a family, in place; raises UserError."""
    kind = family_of(mapping.shape).modules
    if kind != "usual" and mapping.mesh.cp > 1:
        what = f"topology.trainer.context {mapping.mesh.cp}: layers of {mapping.shape.architecture} need whole sequences"
        raise UserError(what, "use 1")
    if kind != "usual" and mapping.modules == "te":
        what = f"{mapping.shape.architecture}: backends.trainer megatron trains this family on CPU processes alone"
        raise UserError(what, "use backends.trainer torch")
    if kind == "hybrid":
        use_hybrid_layers(block, [written.layer_types[n] for n in layers], written, mapping.mesh.tp)
    elif kind == "indexed":
        check_choices(mapping.stages, written)
        use_indexers(block, layers, written, frequencies)


class _Step:
    """One micro-batch through one chunk, as Megatron's schedules call it."""

    def __init__(self, model: StagedModel, temperature: float, loss: Loss | None, entropy_gradient: bool, count: int) -> None:
        self._model, self._temperature, self._entropy_gradient = model, temperature, entropy_gradient
        self._loss, self._count = loss, count

    def __call__(self, batches: Iterator[tuple[int, Staged]], chunk: GPTModel) -> tuple[Any, Any]:
        """Return (output, what makes a loss of it)."""
        number, batch = next(batches)
        output = self._model.forward(chunk, batch, self._temperature, self._entropy_gradient)

        def finish(output: Tensor, non_loss_data: bool = False) -> Any:
            logp, entropy = output.unbind()
            if self._loss is None:
                return logp, entropy
            value, kept = self._loss(logp, entropy, number)
            # Schedules divide by the number of micro-batches and multiply by that of context ranks; ours is a share of the global loss.
            return value * self._count / self._model.context, kept

        return output, finish


def _by_name(chunks: Sequence[GPTModel]) -> dict[tuple[int, str], Tensor]:
    """Return what a checkpoint stores of each chunk: parameters, and buffers that persist (router correction biases)."""
    found: dict[tuple[int, str], Tensor] = {}
    for number, chunk in enumerate(chunks):
        stored_buffers = {name for name in chunk.state_dict() if not name.endswith("_extra_state")}
        tensors = dict(chunk.named_parameters()) | {name: b for name, b in chunk.named_buffers() if name in stored_buffers}
        found |= {(number, name): tensor for name, tensor in tensors.items()}
    return found


def _check(mapping: Mapping, rank: int, parameters: dict[tuple[int, str], Tensor]) -> None:
    """Raise RuntimeError where Megatron built another model than the table says: a defect of the table, or another release."""
    wanted = {(held.chunk, held.name): held.cutting.shape for held in mapping.held(rank)}
    built = {key: tuple(tensor.shape) for key, tensor in parameters.items()}
    wrong = sorted(key for key in wanted.keys() | built.keys() if wanted.get(key) != built.get(key))
    if wrong:
        told = "; ".join(f"{key[1]} (chunk {key[0]}): {built.get(key)}, the table says {wanted.get(key)}" for key in wrong[:5])
        raise RuntimeError(f"Megatron's {mapping.shape.architecture} differs from its table in {len(wrong)} parameters: {told}")
