"""A folder of which transformers has no class: names and shapes alone say what is linear. And a folder's weights, scales apart."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from lprl_api.errors import UserError
from lprl_api.model.formats import Bf16, WeightFormat
from lprl_api.model.formats.mxfp4 import Mxfp4
from lprl_api.model.known import text_section
from lprl_workload.folder.contents import FolderContents
from lprl_workload.folder.header import TensorInfo
from lprl_workload.folder.mxfp4 import BLOCKS, unpacked
from lprl_workload.folder.quantized import PARTNERS, check_codes, is_codes, logical
from lprl_workload.quant.rule import Kind, Ruled, is_expert, is_fused_expert, is_linear, place_of

UNSAID = "the class does not say whether its experts are stored [experts, out, in]"


def weights_of(contents: FolderContents, fmt: WeightFormat) -> Iterator[tuple[TensorInfo, str, tuple[int, ...]]]:
    """Yield (tensor, name of the weight, shape of the weight), scales and the like apart. Raises UserError for scales of plain weights."""
    for tensor in contents.tensors.values():
        module, _, leaf = tensor.name.rpartition(".")
        if isinstance(fmt, Mxfp4) and (found := unpacked(contents, tensor)):
            if tensor.name.endswith(BLOCKS):
                yield tensor, *found
            continue
        if leaf in PARTNERS and not isinstance(fmt, Bf16) and _is_partner(contents, tensor, module, leaf):
            continue
        yield tensor, logical(tensor.name), check_codes(contents, tensor, fmt) if is_codes(tensor) else tensor.shape


def _is_partner(contents: FolderContents, tensor: TensorInfo, module: str, leaf: str) -> bool:
    plain = contents.tensors.get(f"{module}.weight")
    if plain is not None and not is_codes(plain) and leaf.startswith("weight_"):
        what = f"{contents.path(tensor.name)}: tensor {tensor.name}: a scale of {plain.name}, which is {plain.dtype}"
        raise UserError(what, "save the model again: a weight has codes and scales, or neither")
    return plain is not None or f"{module}.weight_packed" in contents.tensors


def held_by_index(contents: FolderContents, config: Mapping[str, Any], fmt: WeightFormat, why: str) -> FolderContents:
    """Return what counts of a folder of which transformers has no class, for the reason `why`. Raises UserError for no text model."""
    place = place_of(logical(name) for name in contents.tensors)
    if place is None:
        what = f"{contents.folder}: no token embedding beside numbered layers"
        raise UserError(f"{what}, and {why}", "complete the download; only decoder models in Hugging Face's layout can be converted")
    kinds: dict[str, Kind] = {}
    refused: dict[str, str] = {}
    experts = 0
    for _, name, shape in weights_of(contents, fmt):
        if place.layer(name) is None:
            continue
        if len(shape) == 3 and is_fused_expert(name):
            refused[name] = f"{UNSAID}: {why}"
        elif len(shape) == 2 and name.endswith(".weight"):
            if is_expert(name):
                kinds[name] = "routed"
                experts = max(experts, 1 + int(name.partition(".experts.")[2].partition(".")[0]))
            elif is_linear(name.removesuffix(".weight"), shape[0], shape[1]):
                kinds[name] = "linear"
    layers = 1 + max((layer for name in contents.tensors if (layer := place.layer(name)) is not None), default=-1)
    said = text_section(config).get("num_hidden_layers")
    architecture = next(iter(config.get("architectures") or ()), None) or str(config.get("model_type"))
    ruled = Ruled(architecture, "index", place, said if isinstance(said, int) else layers, experts, kinds, {}, refused)
    return replace(contents, ruled=ruled, notes=(*contents.notes, f"names and shapes alone say what is linear: {why}"))
