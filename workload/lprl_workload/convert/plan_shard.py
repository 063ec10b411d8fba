"""What becomes of every tensor of a shard, decided and validated before a byte is written."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from lprl_api.errors import UserError
from lprl_api.model.formats import Bf16, WeightFormat
from lprl_api.model.formats.mxfp4 import Mxfp4
from lprl_api.model.model_shape import ModelShape
from lprl_workload.convert.writer import OutputTensor
from lprl_workload.folder.contents import FolderContents
from lprl_workload.folder.files import INDEX_REMEDY
from lprl_workload.folder.header import TensorInfo
from lprl_workload.folder.mxfp4 import BLOCKS, SCALES, unpacked
from lprl_workload.folder.quantized import CODES, FLOATS, PARTNERS, check_codes
from lprl_workload.quant.scheme import module_of, served_names
from lprl_workload.quant.select import FUSED_GATE_UP, Chosen, expert_names

HIGH_PRECISION = Bf16()


@dataclass(frozen=True, slots=True)
class Piece:
    """One output weight and where it comes from: a whole tensor, or one matrix of a fused one."""

    name: str
    shape: tuple[int, ...]
    """Logical shape, [N, K] for what is quantised or dequantised."""
    source: TensorInfo
    start: int
    """Absolute offset of the source bytes in the shard."""
    nbytes: int
    partners: tuple[TensorInfo, ...] = ()
    """Scales (and shape) of a quantised source weight, perhaps in other shards, in the order of served_names without the codes."""
    source_format: WeightFormat = HIGH_PRECISION
    target_format: WeightFormat = HIGH_PRECISION

    @property
    def copies(self) -> bool:
        """Whether the bytes stay as they are."""
        return isinstance(self.source_format, Bf16) and isinstance(self.target_format, Bf16)

    @property
    def unpacks(self) -> bool:
        """Whether it is a layer's experts in MXFP4."""
        return isinstance(self.source_format, Mxfp4)

    def outputs(self) -> tuple[OutputTensor, ...]:
        """Return the tensors this piece becomes."""
        if self.copies:
            return (OutputTensor(self.name, self.source.dtype, self.shape),)
        if self.unpacks:
            return (OutputTensor(self.name, "BF16", self.shape),)
        module, parts = module_of(self.name), self.target_format.parts(*self.shape)
        return tuple(OutputTensor(f"{module}.{part.leaf}", part.dtype, part.shape, last=i > 0) for i, part in enumerate(parts))


@dataclass(frozen=True)
class Planner:
    """Plans the shards of one source for one target format."""

    index: FolderContents
    source_format: WeightFormat
    selection: Chosen
    shape: ModelShape | None
    """None for a family without a table."""

    def check_selection(self) -> None:
        """Raise UserError when nothing is selected, or when modules an engine runs as one are not treated alike."""
        self.selection.ignored_modules(name.removesuffix("_packed") for name in self.index.tensors)

    def plan(self, shard: str) -> tuple[Piece, ...]:
        """Return the pieces of `shard` in file order.

        Raises UserError for a shard the source lacks, a weight whose scales are missing or misshapen, a fused tensor of
        another layout, a selected weight that is no BF16/FP16/FP32 matrix, and INT4 groups that do not divide it.
        """
        if shard not in self.index.shards:
            raise UserError(
                f"shard {shard!r}: not in {self.index.folder}; found {', '.join(self.index.shards)}", "the source changed: inspect it again"
            )
        try:
            return tuple(piece for tensor in self.index.shards[shard] for piece in self._pieces(tensor))
        except UserError as error:
            if error.remedy:
                raise
            raise UserError(f"{self.index.folder / shard}: {error.message}", INDEX_REMEDY) from error

    def _pieces(self, tensor: TensorInfo) -> Iterator[Piece]:
        if isinstance(self.source_format, Mxfp4) and (found := unpacked(self.index, tensor)):
            if tensor.name.endswith(BLOCKS):
                scales = self.index.tensors[f"{found[0]}{SCALES}"]
                yield self._targeted(Piece(*found, tensor, tensor.start, tensor.nbytes, (scales,), self.source_format))
            return
        module, _, leaf = tensor.name.rpartition(".")
        if not isinstance(self.source_format, Bf16):
            if leaf == "weight_zero_point":
                raise UserError(
                    f"tensor {tensor.name}: asymmetric INT4 (zero points) is not supported",
                    "use a symmetric INT4 version of the model, or its BF16 or FP8 one",
                )
            if leaf in PARTNERS and self._has_codes(module):
                return
            if (leaf, tensor.dtype) in CODES or leaf == "weight_packed":
                yield self._quantized(tensor, module)
                return
        if tensor.dtype.startswith("F8_"):
            raise UserError(
                f"tensor {tensor.name}: {tensor.dtype}, but config.json describes no such quantisation of it",
                "restore the quantization_config the model was published with",
            )
        whole = (Piece(tensor.name, tensor.shape, tensor, tensor.start, tensor.nbytes),)
        for piece in self._experts(tensor) if self.selection.is_fused(tensor.name) else whole:
            yield self._targeted(piece)

    def _has_codes(self, module: str) -> bool:
        return f"{module}.weight" in self.index.tensors or f"{module}.weight_packed" in self.index.tensors

    def _targeted(self, piece: Piece) -> Piece:
        if not self.selection.selects(piece.name, piece.shape):
            return piece
        if piece.source.dtype not in FLOATS:
            raise UserError(f"tensor {piece.name}: dtype {piece.source.dtype} cannot be quantised; fits {', '.join(FLOATS)}")
        if 0 in piece.shape:
            raise UserError(f"tensor {piece.name}: empty, shape {list(piece.shape)}", "copy or download the model folder again")
        return Piece(piece.name, piece.shape, piece.source, piece.start, piece.nbytes, target_format=self.selection.fmt)

    def _experts(self, tensor: TensorInfo) -> Iterator[Piece]:
        """Split a fused expert tensor into the per-expert weights engines read; each is a contiguous range of bytes."""
        if self.shape is None:
            yield from self._matrices(tensor)
            return
        moe = self.shape.moe
        gate_up = tensor.name.endswith(FUSED_GATE_UP)
        if moe is None:
            raise UserError(
                f"tensor {tensor.name}: fused experts in {self.shape.architecture}, which has none",
                "restore the config.json the model was published with",
            )
        matrix = (moe.expert_ffn, self.shape.hidden) if gate_up else (self.shape.hidden, moe.expert_ffn)
        wanted = (moe.experts, matrix[0] * (2 if gate_up else 1), matrix[1])
        if tensor.shape != wanted:
            raise UserError(f"tensor {tensor.name}: shape {list(tensor.shape)}, needs [experts, out, in] = {list(wanted)}")
        names = expert_names(tensor.name, moe.experts)
        size = tensor.nbytes // len(names)
        for i, name in enumerate(names):
            yield Piece(name, matrix, tensor, tensor.start + i * size, size)

    def _matrices(self, tensor: TensorInfo) -> Iterator[Piece]:
        """Split a tensor as its class says."""
        assert self.index.ruled is not None, "a family without a table goes by the rule"
        width = tensor.nbytes // math.prod(tensor.shape)
        for name, shape, first in self.index.ruled.fused[tensor.name]:
            yield Piece(name, shape, tensor, tensor.start + first * width, math.prod(shape) * width)

    def _quantized(self, tensor: TensorInfo, module: str) -> Piece:
        """Plan a weight that is quantised in the source: its BF16 value, then the target format."""
        name = f"{module}.weight"
        codes, *partner_names = served_names(name, self.source_format)
        if tensor.name != codes or len(tensor.shape) != 2:
            raise UserError(
                f"tensor {tensor.name}: {tensor.dtype} {list(tensor.shape)} does not fit {self.source_format.kind} of config.json"
            )
        partners = tuple(self._partner(tensor, partner) for partner in partner_names)
        shape = check_codes(self.index, tensor, self.source_format)
        target = self.selection.fmt if self.selection.selects(name, shape) else Bf16()
        return Piece(name, shape, tensor, tensor.start, tensor.nbytes, partners, self.source_format, target)

    def _partner(self, tensor: TensorInfo, name: str) -> TensorInfo:
        # transformers writes fp8 scales without blocks under the block name.
        for candidate in (name, f"{name}_inv"):
            if candidate in self.index.tensors:
                return self.index.tensors[candidate]
        raise UserError(f"tensor {tensor.name}: its partner {name} is in no shard", "copy or download the model folder again")
