"""Weight formats: each answers for itself, and what it writes into config.json is read back as it."""

from typing import get_args

import pytest
from pydantic import TypeAdapter

from lprl_api.model.formats import FORMATS, Bf16, Fp8Block, Fp8Channel, Fp8Tensor, Int4Group, LowPrecision, WeightFormat
from lprl_api.model.formats.base import Format
from lprl_api.model.hf_quantization import parse_quantization_config
from lprl_api.spec.precision import Scope

LOW = [fmt() for kind, fmt in FORMATS.items() if kind != "bf16"]
SIZES = {
    # The tensors of a weight of 130 rows and 256 columns, and their bytes.
    "bf16": ([("weight", "BF16", (130, 256))], 66_560),
    "fp8-block": ([("weight", "F8_E4M3", (130, 256)), ("weight_scale_inv", "F32", (2, 2))], 33_296),
    "fp8-channel": ([("weight", "F8_E4M3", (130, 256)), ("weight_scale", "F32", (130, 1))], 33_800),
    "fp8-tensor": ([("weight", "F8_E4M3", (130, 256)), ("weight_scale", "F32", (1,))], 33_284),
    "int4-group": ([("weight_packed", "I32", (130, 32)), ("weight_scale", "BF16", (130, 2)), ("weight_shape", "I64", (2,))], 17_176),
}


class Nothing:
    def patterns(self) -> list[str]:
        return ["lm_head"]

    def names(self) -> list[str]:
        return ["lm_head"]


def test_every_kind_of_a_format_is_named_once() -> None:
    assert set(get_args(LowPrecision)) | {"bf16"} == set(FORMATS) == set(SIZES)
    assert all(kind == fmt().kind for kind, fmt in FORMATS.items())


@pytest.mark.parametrize("kind", SIZES)
def test_a_format_knows_the_tensors_and_the_bytes_of_a_weight(kind: str) -> None:
    fmt, (parts, nbytes) = FORMATS[kind](), SIZES[kind]
    assert [tuple(part) for part in fmt.parts(130, 256)] == parts
    assert fmt.nbytes(130, 256) == nbytes
    assert fmt.names("x") == tuple(f"x.{leaf}" for leaf, _, _ in parts) and fmt.leaves == tuple(leaf for leaf, _, _ in parts)


@pytest.mark.parametrize("fmt", LOW, ids=lambda fmt: fmt.kind)
def test_stored_shapes_say_the_weight_they_are_of(fmt: Format) -> None:
    codes, scale = (part.shape for part in fmt.parts(256, 384)[:2])
    assert fmt.logical(codes, scale) == ((256, 384), scale, True)
    assert not fmt.logical(codes, (*scale[:-1], scale[-1] + 1))[2]


WRITTEN: list[WeightFormat] = [
    Fp8Block(exclude_modules=("lm_head",)),
    Fp8Block(scale_format="ue8m0", activations="none", exclude_modules=("lm_head",)),
    Fp8Channel(exclude_modules=("lm_head",)),
    Fp8Channel(activations="none", exclude_modules=("lm_head",)),
    Fp8Tensor(activations="none", exclude_modules=("lm_head",)),
    Int4Group(group_size=32, scope=Scope.ALL_LINEAR, exclude_modules=("lm_head",)),
]


@pytest.mark.parametrize("fmt", WRITTEN, ids=lambda fmt: "-".join(map(str, fmt.document().values())))
def test_what_a_format_writes_into_a_config_is_read_back_as_it(fmt: Format) -> None:
    found = parse_quantization_config({"quantization_config": fmt.quantization_config(Nothing())})
    assert found.model_copy(update={"exclude_modules": ("lm_head",)}) == fmt


def test_bf16_has_no_section() -> None:
    assert Bf16().quantization_config(Nothing()) is None


def test_a_document_names_its_kind_first() -> None:
    adapter: TypeAdapter[WeightFormat] = TypeAdapter(WeightFormat)
    for fmt in FORMATS.values():
        document = fmt().document()
        assert next(iter(document)) == "kind" and adapter.validate_python(document) == fmt()
    assert list(Fp8Block().document()) == ["kind", "blockSize", "scaleFormat", "activations", "excludeModules"]


def test_rows_alone_are_whole_tiles_where_no_scale_reaches_over_them() -> None:
    tiles = {kind: fmt().tile(512, 256)[0] for kind, fmt in FORMATS.items() if kind != "bf16"}
    assert tiles == {"fp8-block": 128, "fp8-channel": 1, "fp8-tensor": 512, "int4-group": 1}
