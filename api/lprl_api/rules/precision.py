"""Rules on precision: which training and rollout formats go together, with which source and which tensors."""

from collections.abc import Iterator

from lprl_api.field_error import FieldError, wrong
from lprl_api.model.formats import Bf16, Fp8Block, Int4Group, WeightFormat
from lprl_api.model.formats.chosen import export_format
from lprl_api.model.model_shape import ModelShape
from lprl_api.model.shapes import SHAPES, known_shapes
from lprl_api.model.weights import all_weights, fused_groups, layer_weights, selects
from lprl_api.rules.case import Case, Rule
from lprl_api.spec.precision import Rollout, Training


def _pair(case: Case) -> Iterator[FieldError]:
    precision = case.spec.precision
    if precision.training is Training.INT4_QAT and precision.rollout is not Rollout.INT4:
        need = "int4: int4-qat learns weights for an INT4 engine; or precision.training bf16"
        yield wrong("precision.rollout", precision.rollout, need)
    if precision.training is Training.FP8_QAT and precision.rollout is not Rollout.FP8:
        need = "fp8: fp8-qat learns weights for an FP8 engine; or precision.training bf16"
        yield wrong("precision.rollout", precision.rollout, need)
    if precision.training is Training.FP8 and precision.rollout is Rollout.INT4:
        yield wrong("precision.training", precision.training, "int4-qat or bf16 with rollout int4: FP8 training does not see INT4 rounding")
    if precision.training is Training.FP8 and precision.rollout is Rollout.FP8 and precision.fp8.activations == "none":
        need = "dynamic: FP8 training quantises activations, which this engine would not; or precision.training fp8-qat"
        yield wrong("precision.fp8.activations", "none", need)
    if precision.training is Training.FP8 and precision.fp8.strategy != "block":
        need = "block: FP8 training quantises weights in 128 x 128 blocks; or precision.training fp8-qat or bf16"
        yield wrong("precision.fp8.strategy", precision.fp8.strategy, need)


def _nothing_converted(case: Case) -> Iterator[FieldError]:
    if case.spec.conversion.verify is not None and case.spec.precision.rollout is Rollout.BF16:
        yield wrong("conversion.verify", "texts to compare on", "nothing: precision.rollout bf16 converts nothing")


def _fp8_settings(case: Case) -> Iterator[FieldError]:
    precision, fp8 = case.spec.precision, case.spec.precision.fp8
    uses_fp8 = (
        precision.training in (Training.FP8, Training.FP8_QAT)
        or precision.rollout is Rollout.FP8
        or "fp8" in case.spec.checkpoint.export_formats
    )
    if uses_fp8 and fp8.strategy == "block" and fp8.block_size != (128, 128):
        yield wrong(
            "precision.fp8.blockSize", list(fp8.block_size), "[128, 128], the only block the engines serve and the trainer computes"
        )
    if fp8.scale_format == "ue8m0" and fp8.strategy != "block":
        yield wrong("precision.fp8.scaleFormat", fp8.scale_format, f"float32 with strategy {fp8.strategy}, or strategy block")
    if fp8.param_gather:
        if precision.training is not Training.FP8:
            yield wrong("precision.fp8.paramGather", True, "false, or precision.training fp8")
        if not case.megatron:
            yield wrong("precision.fp8.paramGather", True, "false, or backends.trainer megatron")
        if case.spec.optimizer.cpu_offload:
            need = "false: FP8 parameters and CPU-offloaded Adam exclude each other; or precision.fp8.paramGather false"
            yield wrong("optimizer.cpuOffload", True, need)


def _shape_row(case: Case) -> Iterator[FieldError]:
    name = case.spec.model.shape
    if name is None:
        return
    if name not in SHAPES:
        yield wrong("model.shape", name, f"a known shape ({known_shapes()}), or nothing: the source is inspected anyway")
        return
    if case.inspection is not None:
        ignored = {"dtype", "max_positions", "mtp_layers", "architecture", "tower_parameters", "layout"}
        row, real = SHAPES[name].model_dump(exclude=ignored), case.inspection.shape.model_dump(exclude=ignored)
        different = [f"{key} {row[key]} in the row, {real[key]} in the source" for key in row if row[key] != real[key]]
        if different:
            yield wrong("model.shape", name, f"the shape of the source, or nothing: {'; '.join(different)}")


def _formats(case: Case, shape: ModelShape) -> Iterator[tuple[str, str, WeightFormat]]:
    """Yield (field, what it is for, format) of every low-precision format the job makes, each format once."""
    spec, seen = case.spec, list[WeightFormat]([Bf16()])
    exports = [
        (f"checkpoint.exportFormats[{index}]", "export", export_format(spec.precision, name, shape.moe is not None))
        for index, name in enumerate(spec.checkpoint.export_formats)
    ]
    own = [("precision.rollout", "rollout", case.rollout_format(shape)), ("precision.training", "training", case.training_format(shape))]
    for path, use, fmt in [*own, *exports]:
        if fmt not in seen:
            seen.append(fmt)
            yield path, use, fmt


def _selection(case: Case) -> Iterator[FieldError]:
    if case.shape is None:
        return
    for path, use, fmt in _formats(case, case.shape):
        if isinstance(fmt, Bf16) or any(selects(fmt, module, weight) for module, weight in all_weights(case.shape)):
            continue
        if isinstance(fmt, Int4Group) and case.shape.moe is None and fmt.scope == "routed-experts":
            need = f"all-linear, or nothing: {case.shape.architecture} has no experts, so routed-experts selects no tensor"
            yield wrong("precision.int4.scope", fmt.scope, need)
        else:
            need = f"fewer patterns: they leave no tensor for {use} {fmt.kind}; or {path} bf16"
            yield wrong("precision.excludeModules", list(fmt.exclude_modules), need)


def _groups(case: Case) -> Iterator[FieldError]:
    """Every quantised input dimension must hold whole INT4 groups, also of what is exported at the end of the run."""
    if case.shape is None:
        return
    for _, use, fmt in _formats(case, case.shape):
        if not isinstance(fmt, Int4Group):
            continue
        of_what = f" (for {use} int4)" if use == "export" else ""
        seen: set[tuple[str, int]] = set()
        for module, weight in all_weights(case.shape):
            leaf = weight.module
            if weight.cols % fmt.group_size and (leaf, weight.cols) not in seen and selects(fmt, module, weight):
                seen.add((leaf, weight.cols))
                fits = [size for size in (128, 64, 32) if weight.cols % size == 0]
                change = f"{fits[0]}" if fits else f"a model that fits; or add *.{leaf} to precision.excludeModules"
                yield wrong("precision.int4.groupSize", fmt.group_size, f"{change}: {leaf} has {weight.cols} input channels{of_what}")


def _together(case: Case) -> Iterator[FieldError]:
    """Modules that engines run as one matrix are excluded together or not at all."""
    if case.shape is None or not case.spec.precision.exclude_modules:
        return
    for _, _, fmt in _formats(case, case.shape):
        for layer in range(case.shape.layers):
            taken = {w.module: selects(fmt, f"model.layers.{layer}.{w.module}", w) for w in layer_weights(case.shape, layer)}
            split = next((group for group in fused_groups(taken) if len({taken[module] for module in group}) > 1), None)
            if split is not None:
                need = f"all of {', '.join(split)} or none of them: engines run them as one matrix"
                yield wrong("precision.excludeModules", list(case.spec.precision.exclude_modules), need)
                return


def _engine_support(case: Case) -> Iterator[FieldError]:
    precision = case.spec.precision
    on_cpu = case.spec.topology.accelerator == "cpu"  # our plugin leaves weights there as checkpoints have them
    if case.sglang and precision.rollout is Rollout.INT4 and not on_cpu:
        dense = case.shape is not None and case.shape.moe is None
        if precision.int4.scope == "all-linear" or (dense and precision.int4.scope is None):
            need = (
                "routed-experts of a mixture-of-experts model: sglang cannot restore dense INT4 weights for an update; "
                "or precision.rollout fp8, or backends.rollout torch"
            )
            yield wrong("precision.int4.scope", precision.int4.scope or "all-linear (the default of a dense model)", need)
    strategy = precision.fp8.strategy
    if case.sglang and precision.rollout is Rollout.FP8 and strategy != "block":
        # The engine transposes both after loading and forgets how to load them again.
        fits = "precision.rollout bf16" if case.shape is not None and case.shape.family == "llama" else "block"
        need = f"{fits}: sglang serves {strategy}-wise FP8 from a folder, but updates it through no public path; or backends.rollout torch"
        yield wrong("precision.fp8.strategy", strategy, need)
    elif case.sglang and precision.rollout is Rollout.FP8 and precision.fp8.activations == "none" and not on_cpu:
        need = "dynamic: sglang packs weight-only FP8 for its kernels once and cannot undo it for an update; or backends.rollout torch"
        yield wrong("precision.fp8.activations", "none", need)


def _source(case: Case) -> Iterator[FieldError]:
    """A source that is quantised already must be readable, and match where it is served as it is."""
    if case.inspection is None:
        return
    quantization = case.inspection.quantization
    if quantization.format == "int4-group" and not quantization.symmetric:
        yield wrong("model.source", "asymmetric INT4 weights", "a BF16, FP8 or symmetric INT4 source: asymmetric groups are not trained")
    fmt = case.rollout_format(case.inspection.shape)
    if isinstance(fmt, Int4Group) and quantization.format == "int4-group" and quantization.group_size not in (None, fmt.group_size):
        need = f"{quantization.group_size}, the group of the source's INT4 weights: another group would round them a second time"
        yield wrong("precision.int4.groupSize", fmt.group_size, need)
    if isinstance(fmt, Fp8Block) and quantization.format == "fp8-block" and quantization.block_size not in (None, fmt.block_size):
        yield wrong("precision.fp8.blockSize", list(fmt.block_size), f"{list(quantization.block_size or ())}, the block of the source")


RULES: tuple[Rule, ...] = (_pair, _nothing_converted, _fp8_settings, _shape_row, _selection, _groups, _together, _engine_support, _source)
