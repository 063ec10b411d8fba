"""A folder's tensors against the architecture its config.json names: every tensor is a known one of the right shape, none is missing.

known       the weights of `checkpoint_tensors`, each plain, as codes and scales, or (experts) in a 3-D tensor of its layer
promised    those of multi-token-prediction layers, likewise: a promised layer is whole, or not there at all (with a note)
kept        what a multimodal model has besides its language model
left out    computed tables (rotary frequencies), scales of a KV cache, a tied head's copy of the embedding: with a note
refused     everything else, because the trainer, transformers and the engines would each do something different with it
"""

import re
from collections import ChainMap
from dataclasses import dataclass
from fnmatch import fnmatchcase

from lprl_api.errors import UserError
from lprl_api.model.checkpoint_tensors import EMBEDDING, HEAD, PREFIX, checkpoint_tensors, further_tensors, fused_experts, may_be_shared
from lprl_api.model.formats import Bf16, WeightFormat
from lprl_api.model.model_shape import ModelShape
from lprl_api.model.module_kinds import text_prefix
from lprl_workload.folder.contents import FolderContents
from lprl_workload.folder.files import COMPLETE, shown
from lprl_workload.folder.header import TensorInfo
from lprl_workload.folder.quantized import FLOATS, PARTNERS, check_codes, check_config_fits, is_codes, logical
from lprl_workload.folder.tied import without_tied_head
from lprl_workload.quant.select import Selection, expert_names

MIXED = "config.json and weights are of different models: copy both from the same place again"
MERGE = "merge the adapter into its base model first (PEFT: merge_and_unload, then save_pretrained)"
ADAPTER = re.compile(r"^base_model\.|\.lora_|\.base_layer\.|\.modules_to_save\.|\.original_module\.")
"""Names that PEFT gives to tensors of a model with an adapter in it."""
_COMPUTED = re.compile(r"\.rotary_emb\.(?:inv_freq|cos_cached|sin_cached)$")
_CACHE_SCALE = re.compile(r"\.self_attn\.(?:(?:attn|[qkv]_proj|kv_proj)\.)?(?:q|k|v|kv|prob|output)_scale$")
_FUSED = re.compile(r"\.mlp\.experts\.(gate_up_proj|down_proj)$")
_FUSED_SCALE = re.compile(r"\.mlp\.experts\.(?:gate_up_proj|down_proj)_(?:scale|scale_inv|weight_scale|activation_scale|blocks|scales)$")
_LAYER = re.compile(r"layers\.(\d+)\.")


@dataclass(frozen=True)
class Architecture:
    """What a config.json says the tensors of a folder are."""

    shape: ModelShape
    fmt: WeightFormat
    nested: bool
    """The language model is a part of the model (`text_config`): other tensors are beside it."""

    def held_against(self, contents: FolderContents) -> FolderContents:
        """Return what counts of a folder, with notes on what does not.

        Raises UserError naming the tensors that are missing, misshapen, of a wrong dtype, or none of this architecture.
        """
        prefix = self._prefix(contents)
        contents = _without_computed(contents, prefix)
        self._check_layers(contents, prefix)
        _check_fused(contents)
        check_config_fits(contents, self.fmt)
        found = self._found(contents, prefix)
        self._check_missing(contents, found, prefix)
        self._check_precision(contents, prefix)
        if not self.nested and self.shape.tied_embeddings:
            contents = without_tied_head(contents)
        return self._with_promises(contents, prefix)

    def _prefix(self, contents: FolderContents) -> str:
        """Return what the language model's tensors begin with: `model.`, or a multimodal model's own."""
        if not self.nested:
            if EMBEDDING not in contents.tensors:
                raise self._strange_names(contents)
            return PREFIX
        prefix = text_prefix(contents.tensors)
        if prefix is None:
            what = f"{contents.folder}: no tensor named ...embed_tokens.weight"
            raise UserError(what, "complete the download; only Hugging Face decoder models can be converted")
        return prefix

    def _strange_names(self, contents: FolderContents) -> UserError:
        first = min(contents.tensors, default="none")
        starts = [name.removesuffix(EMBEDDING) + PREFIX for name in contents.tensors if name.endswith(EMBEDDING)]
        if any(name.startswith(f"{PREFIX}layers.") for name in contents.tensors):
            return UserError(f"{contents.folder}: 1 tensor missing: {EMBEDDING}", COMPLETE)
        other = f" (here they begin with {starts[0]!r})" if starts else ""
        what = f"{contents.folder}: tensor {first}: a {self.shape.architecture}'s are called {EMBEDDING}, {PREFIX}layers.0...{other}"
        if ADAPTER.search(first):
            return UserError(what, MERGE)
        return UserError(what, f"save it as {self.shape.architecture} with transformers, whose names these are")

    def _check_layers(self, contents: FolderContents, prefix: str) -> None:
        """Refuse whole layers that are missing, or more than config.json says. Raises UserError."""
        found = {layer for name in contents.tensors if (layer := _layer(name, prefix)) is not None}
        missing = sorted(set(range(self.shape.layers)) - found)
        extra = sorted(found - set(range(self.shape.layers + self.shape.mtp_layers)))
        if missing:
            what = f"{contents.folder}: no tensors of layer {missing[0]}; config.json says {self.shape.layers} layers"
            raise UserError(what, COMPLETE)
        if extra:
            if any(name.startswith(f"{prefix}layers.{extra[0]}.eh_proj.") for name in contents.tensors):
                raise self._not_promised(contents, extra)
            what = f"{contents.folder}: tensors of layer {extra[0]}; config.json says num_hidden_layers {self.shape.layers}"
            raise UserError(what, MIXED)

    def _not_promised(self, contents: FolderContents, extra: list[int]) -> UserError:
        says = f"config.json says num_nextn_predict_layers {self.shape.mtp_layers}"
        what = f"{contents.folder}: tensors of layer {extra[0]}, a multi-token-prediction layer; {says}"
        remove = "remove the layer's tensors"
        if self.shape.family != "deepseek-v3":
            return UserError(what, f"{remove}: a {self.shape.architecture} has no such layers here")
        return UserError(what, f"say num_nextn_predict_layers: {extra[-1] + 1 - self.shape.layers} in config.json, or {remove}")

    def _found(self, contents: FolderContents, prefix: str) -> set[str]:
        """Return the weights that are there, by their names in a plain language model, each checked for dtype and shape."""
        expected = ChainMap(dict(checkpoint_tensors(self.shape)), dict(further_tensors(self.shape)))
        found, unknown = set[str](), list[str]()
        for tensor in contents.tensors.values():
            if self._is_kept(tensor.name, prefix) or self._is_partner(contents, tensor):
                continue
            names = self._weights(contents, tensor, prefix)
            if not all(name in expected for name in names):
                if not self._may_be_there(names[0]):
                    unknown.append(tensor.name)
                continue
            if twice := next((name for name in names if name in found), None):
                raise UserError(f"{contents.path(tensor.name)}: tensor {tensor.name}: {twice} is stored twice, in two forms", MIXED)
            found.update(names)
            self._check_weight(contents, tensor, expected[names[0]])
        if unknown:
            what = f"{contents.path(unknown[0])}: tensor {unknown[0]} is not in a {self.shape.architecture} of this config.json"
            more = f" (nor are {len(unknown) - 1} more)" if len(unknown) > 1 else ""
            remedy = MERGE if ADAPTER.search(unknown[0]) else f"{MIXED}; or save the model without it"
            raise UserError(what + more, remedy)
        return found

    def _may_be_there(self, name: str) -> bool:
        """Return whether a tensor that is no expected weight is told elsewhere: a tied head, scales of a weight that is missing."""
        module, _, leaf = name.rpartition(".")
        scale = not isinstance(self.fmt, Bf16) and leaf in PARTNERS and f"{module}.weight" in checkpoint_tensors(self.shape)
        return self.nested or scale or (self.shape.tied_embeddings and name == HEAD)

    def _is_kept(self, name: str, prefix: str) -> bool:
        """Return whether a tensor is none of the decoder, and rightly there."""
        if _layer(name, prefix) is not None:
            return False
        return self.nested and not (name.startswith(prefix) and name.removeprefix(prefix) in ("embed_tokens.weight", "norm.weight"))

    def _is_partner(self, contents: FolderContents, tensor: TensorInfo) -> bool:
        module, _, leaf = tensor.name.rpartition(".")
        if isinstance(self.fmt, Bf16) or leaf not in PARTNERS:
            return False
        plain = contents.tensors.get(f"{module}.weight")
        if plain is not None and not is_codes(plain):
            if leaf.startswith("weight_"):
                what = f"{contents.path(tensor.name)}: tensor {tensor.name}: a scale of {plain.name}, which is {plain.dtype}"
                raise UserError(what, "save the model again: a weight has codes and scales, or neither")
            return True
        return plain is not None or f"{module}.weight_packed" in contents.tensors

    def _weights(self, contents: FolderContents, tensor: TensorInfo, prefix: str) -> tuple[str, ...]:
        """Return the weights a tensor holds, by their names in a plain language model: one, or those of a layer's experts."""
        name = PREFIX + tensor.name.removeprefix(prefix) if tensor.name.startswith(prefix) else tensor.name
        fused = _FUSED.search(name)
        if fused is None or self.shape.moe is None:
            return (logical(name),)
        wanted = fused_experts(self.shape)[fused[1]]
        if tensor.shape != wanted:
            where = f"{contents.path(tensor.name)}: tensor {tensor.name}: shape {list(tensor.shape)}"
            if tensor.shape == (wanted[0], wanted[2], wanted[1]):
                what = f"{where}: experts are stored [experts, in, out], needs [experts, out, in] = {list(wanted)}"
                raise UserError(what, "save the model with transformers 5, or its experts one by one")
            raise UserError(f"{where}; config.json says [experts, out, in] = {list(wanted)}", MIXED)
        return expert_names(name, self.shape.moe.experts)

    def _check_weight(self, contents: FolderContents, tensor: TensorInfo, wanted: tuple[int, ...]) -> None:
        if is_codes(tensor):
            found: tuple[int, ...] = check_codes(contents, tensor, self.fmt)
        else:
            found = wanted if _FUSED.search(tensor.name) else tensor.shape
            if tensor.dtype not in FLOATS:
                found_here = f"{contents.path(tensor.name)}: tensor {tensor.name}: dtype {tensor.dtype}"
                what = f"{found_here}; needs {', '.join(FLOATS)} with this config.json"
                raise UserError(what, "save the model in bfloat16, or restore the quantization_config it was published with")
        if found != wanted:
            where = f"{contents.path(tensor.name)}: tensor {tensor.name}"
            raise UserError(f"{where}: shape {list(found)}; config.json says {list(wanted)}", MIXED)

    def _check_missing(self, contents: FolderContents, found: set[str], prefix: str) -> None:
        expected = checkpoint_tensors(self.shape)
        missing = [name for name in expected if name not in found and not (self.nested and name == HEAD)]
        begun = {layer for name in found if (layer := _layer(name, PREFIX)) is not None and layer >= self.shape.layers}
        further = (name for name in further_tensors(self.shape) if _layer(name, PREFIX) in begun and not may_be_shared(name))
        missing += [name for name in further if name not in found]
        if not missing:
            return
        count = "1 tensor" if len(missing) == 1 else f"{len(missing)} tensors"
        remedy = COMPLETE
        if missing == [HEAD]:
            remedy = "complete the download, or, where the head is the embedding, say tie_word_embeddings: true in config.json"
        elif all(name.endswith(".bias") for name in missing):
            remedy = MIXED
        names = shown(f"{prefix}{name.removeprefix(PREFIX)}" if name.startswith(PREFIX) else name for name in missing)
        raise UserError(f"{contents.folder}: {count} missing: {names}", remedy)

    def _check_precision(self, contents: FolderContents, prefix: str) -> None:
        """Refuse weights that config.json says are quantised and that are not, or the other way round. Raises UserError."""
        if isinstance(self.fmt, Bf16):
            return
        selection = Selection.of(self.fmt, self.shape, contents.tensors)
        for tensor in contents.tensors.values():
            name = logical(tensor.name)
            layer = _layer(name, prefix)
            if layer is None or layer >= self.shape.layers or not name.endswith(".weight"):
                continue
            if selection.takes(name) and not is_codes(tensor):
                what = f"{contents.path(tensor.name)}: tensor {tensor.name}: {tensor.dtype}; quantization_config says {self.fmt.kind}"
                raise UserError(what, "list the module among those that are not quantised, or save the whole model in one precision")
            if is_codes(tensor) and any(fnmatchcase(name.removesuffix(".weight"), pattern) for pattern in self.fmt.exclude_modules):
                what = f"{contents.path(tensor.name)}: tensor {tensor.name}: {tensor.dtype}; quantization_config says it is not quantised"
                raise UserError(what, "take the module off the list of those that are not quantised")

    def _with_promises(self, contents: FolderContents, prefix: str) -> FolderContents:
        layers = range(self.shape.layers, self.shape.layers + self.shape.mtp_layers)
        absent = [layer for layer in layers if not any(_layer(name, prefix) == layer for name in contents.tensors)]
        if not absent:
            return contents
        said = f"config.json says num_nextn_predict_layers {self.shape.mtp_layers}; there are no tensors of layer {absent[0]}"
        return FolderContents(contents.folder, contents.shards, contents.ignored, (*contents.notes, f"{said}: no multi-token prediction"))


def _layer(name: str, prefix: str) -> int | None:
    """Return the decoder layer a tensor lies in."""
    found = _LAYER.match(name, len(prefix)) if name.startswith(prefix) else None
    return int(found[1]) if found else None


def _without_computed(contents: FolderContents, prefix: str) -> FolderContents:
    names = [name for name in contents.tensors if name.startswith(prefix)]
    tables = [name for name in names if _COMPUTED.search(name)]
    scales = [name for name in names if _CACHE_SCALE.search(name)]
    return contents.without(tables, "computed, not stored").without(scales, "scales of a quantised KV cache, which is not used")


def _check_fused(contents: FolderContents) -> None:
    """Refuse quantised experts in 3-D tensors. Raises UserError."""
    codes = (t for t in contents.tensors.values() if _FUSED.search(t.name) and t.dtype not in FLOATS)
    scales = (t for t in contents.tensors.values() if _FUSED_SCALE.search(t.name))
    if tensor := next(codes, None) or next(scales, None):
        where = f"{contents.path(tensor.name)}: tensor {tensor.name}"
        what = f"{where}: {tensor.dtype} {list(tensor.shape)}: quantised experts of a layer in one tensor"
        raise UserError(what, "save the model with its experts one by one (save_pretrained without save_original_format=False), or in BF16")
