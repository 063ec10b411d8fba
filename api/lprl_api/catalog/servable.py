"""What SGLang can serve: every weight of a model that a format stores in a way its kernels do not take, with why.

Measured on an H200 with SGLang 0.5.17, read in 0.5.23; widths are those of one tensor-parallel rank:

    fp8-block    each of q, k, v, gate, up (merged, or split by rows): output channels in multiples of the block; input channels
                 of every linear too (activations are quantised in groups of 128); ragged rows of o_proj and down_proj are fine.
                 The Llama class renames the scales while it loads and serves garbage.
    fp8-channel, fp8-tensor   every shape; not routed experts by tensor
    int4-group   each fused matrix fits a Marlin tile: input channels in multiples of 128 and outputs of 64, or 64 and 128 (experts:
                 64 and 128); and whole groups of input channels
    fp8-block, fp8-tensor with activations none   Marlin tiles, too (served here in multiples of 128). Block FP8 needs the engine's
                 switch SGLANG_FORCE_FP8_MARLIN=1 on GPUs with FP8 units.
    fp8-channel with activations none   not at all: its loader takes weights by channel without input_activations for packed ones

The torch engine serves every shape.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from lprl_api.model.formats import Bf16, Fp8Block, Fp8Channel, Fp8Tensor, Int4Group, WeightFormat
from lprl_api.model.model_shape import ModelShape
from lprl_api.model.weight import LINEAR_KINDS, Weight
from lprl_api.model.weights import all_weights, fused_groups, layer_weights, selects

_MEASURED = (Bf16, Fp8Block, Fp8Channel, Fp8Tensor, Int4Group)
_MERGED = {"q_proj": "qkv_proj", "gate_proj": "gate_up_proj", "q_a_proj": "fused_qkv_a_proj_with_mqa"}
_MARLIN_TILES = ((128, 64), (64, 128))
_MARLIN_EXPERT_TILES = ((64, 128),)
"""(input channels, output channels) of which a matrix must be whole multiples."""


@dataclass(frozen=True)
class EngineMatrix:
    """One matrix of an engine's kernels on one rank; an expert's stands for all experts of its layer."""

    name: str
    """Module name of the engine, such as model.layers.0.self_attn.qkv_proj."""
    parts: tuple[Weight, ...]
    """Checkpoint weights in it, in order."""
    rows: tuple[int, ...]
    """Output channels of each part on one rank."""
    cols: int
    """Input channels on one rank."""
    whole: bool
    """Every part splits evenly over the ranks."""
    ranks: int

    @property
    def is_expert(self) -> bool:
        """Whether it is a routed expert's."""
        return self.parts[0].kind == "expert"

    @property
    def place(self) -> str:
        """Where its widths count, in words."""
        return f" on each of {self.ranks} ranks" if self.ranks > 1 and self.parts[0].sharding != "replicated" else ""


@dataclass(frozen=True)
class Unservable:
    """A matrix the engine does not take in this format."""

    name: str
    parts: tuple[str, ...]
    """Checkpoint modules in it, by their names in a layer."""
    why: str

    def __str__(self) -> str:
        return f"{self.name}: {self.why}"


def unservable(shape: ModelShape, fmt: WeightFormat, tensor: int = 1, expert: int = 1) -> tuple[Unservable, ...]:
    """Return what SGLang cannot serve of a model in a format, one entry for each kind of matrix (its first layer); empty: all is fine.

    Args:
        shape: the model.
        fmt: format, excluded modules included.
        tensor: tensor-parallel ranks of an engine.
        expert: expert-parallel groups of an engine; a divisor of `tensor`, which leaves tensor / expert ranks to each expert.

    """
    if not isinstance(fmt, _MEASURED):
        return (Unservable("model", (), f"nothing is known of how SGLang serves {fmt.kind}"),)
    if isinstance(fmt, Bf16) or (isinstance(fmt, Fp8Channel) and fmt.activations == "dynamic"):
        return ()
    if isinstance(fmt, Fp8Block) and shape.family == "llama":
        why = f"SGLang's {shape.architecture} renames the scales of block FP8 while it loads and would serve garbage"
        return (Unservable("model", (), why),)
    if isinstance(fmt, Fp8Channel):
        why = "SGLang's loader of channel weights without activation quantisation takes the packed format alone and ends"
        return (Unservable("model", (), why),)
    return _unservable(shape, fmt, tensor, expert)


@cache
def _unservable(shape: ModelShape, fmt: WeightFormat, tensor: int, expert: int) -> tuple[Unservable, ...]:
    found: dict[tuple[str, ...], Unservable] = {}
    for layer in range(shape.layers):
        for matrix in engine_matrices(shape, layer, tensor, expert):
            modules = tuple(part.module for part in matrix.parts)
            if modules in found or not any(selects(fmt, f"model.layers.{layer}.{part.module}", part) for part in matrix.parts):
                continue
            why = _problem(matrix, fmt)
            if why is not None:
                found[modules] = Unservable(matrix.name, modules, why)
    return tuple(found.values())


def engine_matrices(shape: ModelShape, layer: int, tensor: int = 1, expert: int = 1) -> Iterator[EngineMatrix]:
    """Yield the matrices of a decoder layer as an engine of `tensor` ranks computes them."""
    linear = {weight.module: weight for weight in layer_weights(shape, layer) if weight.kind in LINEAR_KINDS}
    merged = {group[0]: group for group in fused_groups(linear)}
    inside = {module for group in merged.values() for module in group[1:]}
    for module, weight in linear.items():
        if module in inside:
            continue
        parts = tuple(linear[name] for name in merged.get(module, (module,)))
        base, _, leaf = module.rpartition(".")
        name = f"model.layers.{layer}.{base}.{_MERGED[leaf] if len(parts) > 1 else leaf}"
        ranks = max(1, tensor // expert) if weight.kind == "expert" else tensor
        rows = tuple(_rows(shape, part, ranks) for part in parts)
        cols = weight.cols // ranks if weight.sharding == "row" else weight.cols
        split = [part.rows if part.sharding == "column" else part.cols for part in parts if part.sharding in ("column", "row")]
        yield EngineMatrix(name, parts, rows, cols, all(size % ranks == 0 for size in split), ranks)


def _rows(shape: ModelShape, part: Weight, ranks: int) -> int:
    if part.sharding != "column":
        return part.rows
    if part.module.endswith((".k_proj", ".v_proj")) and shape.kv_heads < ranks:
        return shape.head_dim  # key and value heads are replicated where there are fewer than ranks
    return part.rows // ranks


def _problem(matrix: EngineMatrix, fmt: WeightFormat) -> str | None:
    if not matrix.whole:
        return None  # no whole shards at all: rules_shape has the error, whatever the format
    if isinstance(fmt, Fp8Tensor) and matrix.is_expert:
        return "SGLang takes one scale for a whole expert only where activations have one scale as well"
    if isinstance(fmt, Fp8Block) and (why := _fp8_problem(matrix, fmt)) is not None:
        return why
    if isinstance(fmt, Int4Group) and matrix.cols % fmt.group_size:
        return f"{matrix.cols} input channels{matrix.place}, no multiple of group {fmt.group_size}"
    weight_only = isinstance(fmt, Int4Group) or getattr(fmt, "activations", "dynamic") == "none"
    return _tile_problem(matrix) if weight_only else None


def _fp8_problem(matrix: EngineMatrix, fmt: Fp8Block) -> str | None:
    block_rows, block_cols = fmt.block_size
    merged, replicated = len(matrix.parts) > 1, matrix.parts[0].sharding == "replicated"
    checked = list(zip(matrix.parts, matrix.rows, strict=True)) if merged or matrix.ranks > 1 else []
    if replicated:
        checked = checked[:-1]  # only the first part's ragged rows would shift the scales of the next
    for part, rows in checked:
        if part.sharding != "row" and rows % block_rows:
            return f"{_leaf(part)} has {rows} output channels{matrix.place}, no multiple of {block_rows}"
    if matrix.cols % block_cols:
        return f"{matrix.cols} input channels{matrix.place}, no multiple of {block_cols}"
    return None


def _tile_problem(matrix: EngineMatrix) -> str | None:
    rows, cols = sum(matrix.rows), matrix.cols
    tiles = _MARLIN_EXPERT_TILES if matrix.is_expert else _MARLIN_TILES
    if any(cols % k == 0 and rows % n == 0 for k, n in tiles):
        return None
    wanted = " or ".join(f"inputs in multiples of {k} and outputs of {n}" for k, n in tiles)
    return f"{cols} input and {rows} output channels{matrix.place} fit no Marlin tile ({wanted})"


def _leaf(part: Weight) -> str:
    return part.module.rpartition(".")[2]


def servable_without(shape: ModelShape, fmt: WeightFormat, tensor: int = 1, expert: int = 1) -> tuple[str, ...]:
    """Return the exclusions that make a format servable and leave it something to quantise; empty when there are none."""
    if isinstance(fmt, Bf16):
        return ()
    found = unservable(shape, fmt, tensor, expert)
    patterns = tuple(dict.fromkeys(f"*.{module}" for entry in found for module in entry.parts))
    changed = fmt.model_copy(update={"exclude_modules": (*fmt.exclude_modules, *patterns)})
    left = any(selects(changed, module, weight) for module, weight in all_weights(shape))
    return patterns if patterns and left and not unservable(shape, changed, tensor, expert) else ()


def servable_tensors(shape: ModelShape, fmt: WeightFormat, most: int, expert: int = 1) -> list[int]:
    """Return the tensor-parallel sizes up to `most` that divide the attention heads and with which SGLang serves the format."""
    sizes = [size for size in range(1, most + 1) if shape.heads % size == 0 and size % expert == 0]
    return [size for size in sizes if not unservable(shape, fmt, size, expert)]


def folder_warnings(shape: ModelShape, fmt: WeightFormat) -> tuple[str, ...]:
    """Return what a folder converted to a format should be told with: what SGLang cannot serve of it on any GPU, and what it can."""
    found = unservable(shape, fmt)
    if not found or isinstance(fmt, Bf16):
        return ()
    fits = ["fp8-channel with FP8 activations, which SGLang serves in every shape"]
    if isinstance(fmt, Int4Group):
        sizes = [size for size in (128, 64, 32) if not unservable(shape, fmt.model_copy(update={"group_size": size}))]
        fits = [f"group size {size}" for size in sizes] + fits
    tensor = Fp8Tensor(activations="none", exclude_modules=fmt.exclude_modules)
    if getattr(fmt, "activations", "dynamic") == "none" and not isinstance(fmt, Fp8Tensor) and not unservable(shape, tensor):
        fits.insert(0, "fp8-tensor with BF16 activations")
    if patterns := servable_without(shape, fmt):
        fits.append(f"the same without {', '.join(patterns)} (precision.excludeModules; lprl convert: --exclude)")
    return (*(f"SGLang cannot serve {fmt.kind}: {entry}" for entry in found), f"what fits: {'; or '.join(fits)}")
