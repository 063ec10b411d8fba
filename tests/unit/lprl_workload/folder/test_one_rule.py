"""One rule decides what a folder's model is: inspect, convert, verify, trainer and engine agree on odd folders, tensor for tensor,
and transformers where it accepts the folder."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tests.unit.lprl_workload.folder import odd_folders as odd
from tests.unit.lprl_workload.folder import odd_folders_layers as far
from tests.unit.lprl_workload.folder import odd_folders_refused as bad
from tests.unit.lprl_workload.folder.odd_folders import Tensors

from lprl_api.errors import UserError
from lprl_api.model.formats import Bf16
from lprl_workload.convert.export import convert_folder
from lprl_workload.convert.fingerprint import fingerprint
from lprl_workload.convert.inspect import inspect_folder
from lprl_workload.convert.verify import verify_folder
from lprl_workload.convert.weights import ModelFolder
from lprl_workload.folder.config import read_shape
from lprl_workload.folder.model import read_contents
from lprl_workload.hf.model import build_model
from lprl_workload.hf.served import ServedModel
from lprl_workload.hf.slots import weight_slots
from lprl_workload.train.build import read_weights

AGREES, REFUSES = "agrees", "refuses"
LAST_WINS = "takes the copy in the last file"
Row = tuple[str, odd.Change, str, str]

READ: list[Row] = [
    ("qwen3", odd.sharded, AGREES, ""),
    ("qwen3", odd.single, AGREES, ""),
    ("qwen3", odd.stale_copy_before, AGREES, "another file has it"),
    ("qwen3", odd.stale_copy_behind, LAST_WINS, "transformers takes the copy in the last file"),
    ("qwen3", odd.stale_copy_of_another_shape, AGREES, "another file has it"),
    ("qwen3", odd.unnamed_tensor, AGREES, "stale_proj.weight in model-00001-of-00002.safetensors: .* does not name it"),
    ("qwen3", odd.leftover_shards, AGREES, "not read: model-00003-of-00003"),
    ("qwen3", odd.adapter_beside_shards, AGREES, "not read: adapter_model"),
    ("qwen3", far.adapter_beside_single, AGREES, "not read: adapter_model"),
    ("qwen3", odd.consolidated_beside_shards, AGREES, "not read: consolidated"),
    ("qwen3", odd.training_state_beside_shards, REFUSES, "not read: optimizer"),
    ("qwen3", odd.shards_without_index, REFUSES, "transformers does not"),
    ("qwen3", odd.another_name, REFUSES, "transformers does not"),
    ("qwen3", odd.two_names, REFUSES, "transformers does not"),
    ("qwen3", odd.single_beside_old_shards_without_index, AGREES, "not read: model-00001-of-00002"),
    ("qwen3", odd.variant_beside_single, AGREES, "not read: model.fp16"),
    ("qwen3-moe", odd.cache_links, AGREES, ""),
    ("qwen3", odd.subfolder_with_another_model, AGREES, ""),
    ("qwen3", odd.empty_shard, REFUSES, "transformers does not"),
    ("qwen3", odd.single_named_by_its_index, AGREES, ""),
    ("qwen3", odd.pickle_beside_single, AGREES, ""),
    ("qwen3", odd.resource_fork, AGREES, ""),
    ("qwen3", far.tied, AGREES, ""),
    ("llama", far.tied_with_equal_head, AGREES, "lm_head.weight: config.json ties"),
    ("qwen2", far.tied_with_equal_head_in_a_shard_of_its_own, AGREES, "lm_head.weight: config.json ties"),
    ("llama", far.rotary_tables, AGREES, "computed, not stored"),
    ("qwen3", far.cache_scales, AGREES, "KV cache"),
    ("llama", far.wide_norm, AGREES, ""),
    ("deepseek-v3", far.promised_layers_absent, AGREES, "no multi-token prediction"),
    ("moonlight", far.further_layer, AGREES, ""),
    ("deepseek-v3", far.further_layer, AGREES, ""),
    ("deepseek-v3", far.further_layer_without_shared_tensors, AGREES, ""),
    ("qwen3", far.adapter_settings_left, AGREES, "adapter_config.json: .* not applied"),
    ("qwen3", far.adapter_with_settings, AGREES, "adapter_config.json: .* not applied"),
    ("qwen3-moe", far.fused_experts, AGREES, ""),
    ("deepseek-v3", far.fused_experts, AGREES, ""),
    ("moonlight", odd.sharded, AGREES, ""),
]

REFUSED: list[tuple[str, str, odd.Change, str]] = [
    (
        "fine-tune-over-base",
        "qwen3",
        bad.fine_tune_saved_over_shards,
        r"two models: transformers reads model\.safetensors",
    ),
    ("tensor-in-two-files", "qwen3", bad.in_two_files, "in both model-00001"),
    ("shards-incomplete", "qwen3", bad.incomplete_numbers, r"model-00002-of-00002\.safetensors: missing \(1 of 2"),
    ("two-sets-of-shards", "qwen3", bad.two_numbered_sets, "two models, model-.* and old-"),
    ("no-q-proj", "qwen3", bad.missing(odd.Q), r"1 tensor missing: model\.layers\.0\.self_attn\.q_proj\.weight"),
    ("no-norm", "llama", bad.missing(odd.NORM), r"1 tensor missing: model\.norm\.weight"),
    ("no-head", "qwen3", bad.missing(odd.HEAD), r"1 tensor missing: lm_head\.weight"),
    ("no-embedding", "llama", bad.missing(odd.EMBEDDING), r"1 tensor missing: model\.embed_tokens\.weight"),
    ("no-expert", "qwen3-moe", bad.missing(f"{odd.EXPERTS}3.down_proj.weight"), r"1 tensor missing: .*experts\.3\.down_proj"),
    ("no-router-bias", "deepseek-v3", bad.missing("model.layers.1.mlp.gate.e_score_correction_bias"), "1 tensor missing: .*e_score"),
    ("no-bias", "qwen2", bad.missing("model.layers.1.self_attn.k_proj.bias"), r"1 tensor missing: .*k_proj\.bias"),
    ("no-q-norm", "qwen3", bad.missing("model.layers.0.self_attn.q_norm.weight", odd.Q), "2 tensors missing: "),
    ("norm-shape", "llama", bad.changed(odd.NORM, lambda t: t[:8]), r"norm\.weight: shape \[8\]; config.json says \[64\]"),
    ("router-shape", "moonlight", bad.changed("model.layers.1.mlp.gate.weight", lambda t: t[:3]), r"gate\.weight: shape \[3, 64\]"),
    ("integers", "qwen3", bad.changed(odd.NORM, lambda t: t.to(torch.int8)), r"norm\.weight: dtype I8; needs BF16"),
    (
        "unknown-tensor",
        "qwen3",
        bad.with_extra(model__layers__0__self_attn__stale_proj__weight=1),
        "stale_proj.weight is not in",
    ),
    ("unknown-bias", "qwen3", bad.with_extra(model__layers__0__self_attn__q_proj__bias=1), r"q_proj\.bias is not in"),
    ("value-head", "qwen3", bad.with_extra(v_head__summary__weight=1), r"v_head\.summary\.weight is not in"),
    ("scales-without-config", "qwen3", bad.with_extra(model__layers__0__mlp__up_proj__weight_scale=1), "weight_scale is not in"),
    ("head-differs", "qwen3", bad.configured(odd.single, tie_word_embeddings=True), "the stored head differs from it in row 0"),
    (
        "head-shape",
        "qwen3",
        bad.configured(bad.changed(odd.HEAD, lambda t: t[:5]), tie_word_embeddings=True),
        r"the stored head is \[5, 64\], the embedding",
    ),
    ("base-class-names", "qwen3", bad.renamed(lambda n: n.removeprefix("model.")), r"tensor embed_tokens\.weight: a Qwen3ForCausalLM's"),
    ("ddp-names", "qwen3", bad.renamed(lambda n: f"module.{n}"), r"here they begin with 'module\.model\.'"),
    ("more-layers", "qwen3", bad.configured(num_hidden_layers=1), "tensors of layer 1; config.json says num_hidden_layers 1"),
    ("fewer-layers", "qwen3", bad.configured(num_hidden_layers=3), "no tensors of layer 2; config.json says 3 layers"),
    ("index-without-tensor", "qwen3", bad.indexed(x="model-00001-of-00002.safetensors"), "tensor x: is in no shard"),
    ("index-of-a-missing-file", "qwen3", bad.indexed(x="model-00009.safetensors"), "model-00009.safetensors: missing, but named"),
    ("index-out-of-the-folder", "qwen3", bad.indexed(x="../model.safetensors"), "no plain .safetensors file name"),
    ("index-with-a-key-twice", "qwen3", bad.index_with_a_key_twice, "is in it twice"),
    ("pickled", "qwen3", bad.files_only("pytorch_model.bin"), "only pickled ones such as pytorch_model.bin"),
    ("gguf", "qwen3", bad.files_only("model-q4.gguf"), "GGUF"),
    (
        "adapter-and-settings",
        "qwen3",
        bad.files_only("adapter_model.safetensors", "adapter_config.json"),
        "no model, only an adapter",
    ),
    (
        "pickled-adapter",
        "qwen3",
        bad.files_only("adapter_model.bin", "adapter_config.json"),
        "no model, only an adapter",
    ),
    (
        "mtp-tensor-missing",
        "deepseek-v3",
        far.further_layer_with(lambda t: odd.without(t, "model.layers.2.eh_proj.weight")),
        r"1 tensor missing: model\.layers\.2\.eh_proj\.weight",
    ),
    (
        "mtp-attention-missing",
        "moonlight",
        far.further_layer_with(lambda t: odd.without(t, "model.layers.2.self_attn.o_proj.weight", "model.layers.2.hnorm.weight")),
        "2 tensors missing: ",
    ),
    (
        "mtp-expert-missing",
        "deepseek-v3",
        far.further_layer_with(lambda t: odd.without(t, "model.layers.2.mlp.experts.3.down_proj.weight")),
        r"1 tensor missing: model\.layers\.2\.mlp\.experts\.3\.down_proj",
    ),
    (
        "mtp-shape",
        "deepseek-v3",
        far.further_layer_with(lambda t: t | {"model.layers.2.eh_proj.weight": torch.ones(64, 64)}),
        r"eh_proj\.weight: shape \[64, 64\]; config.json says \[64, 128\]",
    ),
    (
        "mtp-dtype",
        "deepseek-v3",
        far.further_layer_with(lambda t: t | {"model.layers.2.enorm.weight": torch.ones(64, dtype=torch.int8)}),
        r"enorm\.weight: dtype I8; needs",
    ),
    (
        "mtp-unknown-tensor",
        "deepseek-v3",
        far.further_layer_with(lambda t: t | {"model.layers.2.stale_proj.weight": torch.ones(4)}),
        r"layers\.2\.stale_proj\.weight is not in",
    ),
    (
        "mtp-not-promised",
        "deepseek-v3",
        far.further_layer_with(lambda t: t, promised=0),
        r"layer 2, a multi-token-prediction layer; config\.json says num_nextn_predict_layers 0",
    ),
    ("adapter-alone", "qwen3", bad.files_only("adapter_model.safetensors"), "no model, only adapter_model.safetensors"),
    ("variant-index", "qwen3", bad.files_only("model.fp16.safetensors.index.json", "model.fp16.safetensors"), "index of a variant"),
    ("another-case", "qwen3", bad.files_only("Model.SafeTensors"), "written in another case"),
    ("dangling-link", "qwen3", bad.dangling_link, "a link to ../blobs/not-there"),
    ("transposed-experts", "qwen3-moe", bad.transposed_experts, r"experts are stored \[experts, in, out\]"),
    ("experts-in-both-forms", "qwen3-moe", bad.experts_in_both_forms, "is stored twice, in two forms"),
    (
        "another-file-in-config",
        "qwen3",
        bad.configured(odd.single, transformers_weights="other.safetensors"),
        "transformers read other",
    ),
]


def same(found: Tensors, wanted: Tensors) -> None:
    assert sorted(found) == sorted(wanted)
    for name, tensor in wanted.items():
        assert found[name].shape == tensor.shape and torch.equal(found[name].float(), tensor.float()), name


def trained(folder: Path) -> Tensors:
    """What the trainer and the reference read."""
    shape = read_shape(folder)
    slots = weight_slots(build_model(folder, shape, "cpu"), shape)
    return {slot.name: tensor.clone() for slot, tensor in read_weights(folder, slots, shape)}


def served(folder: Path) -> Tensors:
    """What the torch engine serves, rounded as it does."""
    model = ServedModel(folder, Bf16(), read_shape(folder), "cpu")
    model.load_folder(folder)
    return {slot.name: slot.read().clone() for slot in weight_slots(model.model, model.shape)}


def by_transformers(folder: Path) -> Tensors:
    shape = read_shape(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert not model.config.tie_word_embeddings or model.lm_head.weight is model.model.embed_tokens.weight
    return {slot.name: slot.read().clone() for slot in weight_slots(model, shape)}


@pytest.mark.parametrize(("architecture", "change", "transformers_verdict", "note"), READ, ids=lambda v: getattr(v, "__name__", None))
def test_all_parts_read_the_same_tensors(
    architecture: str, change: odd.Change, transformers_verdict: str, note: str, make: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = make(architecture)
    wanted = change(folder)
    assert wanted is not None
    inspection = inspect_folder(folder, "")
    contents = read_contents(folder)
    assert inspection.tensors == len(contents.tensors) and inspection.shards == len(contents.shards)
    assert inspection.total_bytes == sum(t.numel() * t.element_size() for t in wanted.values())
    assert bool(inspection.notes) == bool(note)
    assert not note or any(re.search(note, found) for found in inspection.notes), inspection.notes

    convert_folder(folder, tmp_path / "converted", Bf16(), 1)
    assert verify_folder(tmp_path / "converted", folder, None).problems == ()
    target = ModelFolder(tmp_path / "converted")
    same({name: target.weight(name).values() for name in target.names()}, wanted)
    source = ModelFolder(folder)
    same({name: source.weight(name).values() for name in wanted}, wanted)
    wanted = {name: tensor for name, tensor in wanted.items() if "layers.2." not in name}  # multi-token prediction is not trained
    same(trained(folder), wanted)
    same(served(folder), {n: t if "correction_bias" in n else t.bfloat16() for n, t in wanted.items()})
    _check_transformers(folder, wanted, transformers_verdict)


def _check_transformers(folder: Path, wanted: Tensors, verdict: str) -> None:
    if verdict == REFUSES:
        with pytest.raises(OSError, match="no file named"):
            by_transformers(folder)
        return
    theirs = by_transformers(folder)
    if verdict == AGREES:
        same(theirs, wanted)
        return
    differing = [name for name in wanted if not torch.equal(theirs[name], wanted[name].float())]
    assert len(differing) == 1, "the copy that the index does not mean"


@pytest.mark.parametrize(
    ("change", "remedy"),
    [
        (far.further_layer_with(lambda t: t, promised=0), "say num_nextn_predict_layers: 1 in config.json, or remove the layer"),
        (bad.files_only("adapter_model.bin", "adapter_config.json"), "merge the adapter"),
    ],
    ids=["mtp-not-promised", "adapter"],
)
def test_the_remedy_is_one_that_helps(change: odd.Change, remedy: str, make: Callable[[str], Path]) -> None:
    folder = make("deepseek-v3")
    change(folder)
    with pytest.raises(UserError) as refused:
        read_contents(folder)
    assert remedy in str(refused.value.remedy)


PARTS: dict[str, Callable[[Path, Path], Any]] = {
    "inspect": lambda folder, _: inspect_folder(folder, ""),
    "fingerprint": lambda folder, _: fingerprint(folder, ""),
    "convert": lambda folder, out: convert_folder(folder, out, Bf16(), 1),
    "verify": lambda folder, _: verify_folder(folder, None, None),
    "trainer": lambda folder, _: trained(folder),
    "engine": lambda folder, _: served(folder),
}


@pytest.mark.parametrize(("architecture", "change", "match"), [pytest.param(*row[1:], id=row[0]) for row in REFUSED])
def test_all_parts_refuse_the_same_folders(
    architecture: str, change: odd.Change, match: str, make: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = make(architecture)
    change(folder)
    said = {}
    for part, read in PARTS.items():
        with pytest.raises(UserError, match=match) as refused:
            read(folder, tmp_path / "out")
        assert refused.value.remedy and "\n" not in refused.value.message
        said[part] = (refused.value.message, refused.value.remedy)
    assert len(set(said.values())) == 1, said
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.partial").exists()


def test_the_folders_are_thirty_and_more() -> None:
    assert len(READ) >= 30 and len(REFUSED) >= 30
