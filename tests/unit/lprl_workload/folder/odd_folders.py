"""Odd model folders, made of a plain one: what is in them, and what the rule says of them.

Each function changes a folder that holds one model (in two shards with an index) and returns the model's tensors as the rule reads
them; for a folder that is refused it returns None.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

Tensors = dict[str, Tensor]
Change = Callable[[Path], Tensors | None]
INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
UP, Q, NORM, HEAD = (
    "model.layers.0.mlp.up_proj.weight",
    "model.layers.0.self_attn.q_proj.weight",
    "model.norm.weight",
    "lm_head.weight",
)
EMBEDDING = "model.embed_tokens.weight"
EXPERTS = "model.layers.1.mlp.experts."


def of(folder: Path) -> Tensors:
    """Every tensor of the plain folder."""
    return {name: tensor for file in sorted(folder.glob("model*.safetensors")) for name, tensor in load_file(file).items()}


def save(folder: Path, files: Mapping[str, Tensors], index: Mapping[str, str] | None = None) -> None:
    """Replace the weights by `files`, with an index or none."""
    for path in (*folder.glob("*.safetensors"), folder / INDEX):
        path.unlink(missing_ok=True)
    for name, tensors in files.items():
        save_file(tensors, folder / name, metadata={"format": "pt"})
    if index is not None:
        (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": dict(index)}))


def halves(tensors: Tensors) -> tuple[Tensors, Tensors]:
    names = sorted(tensors)
    cut = len(names) // 2
    return {n: tensors[n] for n in names[:cut]}, {n: tensors[n] for n in names[cut:]}


def whole(folder: Path, tensors: Tensors | None = None) -> Tensors:
    """One model.safetensors of these tensors."""
    tensors = of(folder) if tensors is None else tensors
    save(folder, {SINGLE: tensors})
    return tensors


def add(folder: Path, file: str, tensors: Tensors) -> None:
    """Put tensors into a file that is there (or a new one), and not into the index."""
    there = load_file(folder / file) if (folder / file).exists() else {}
    save_file({**there, **tensors}, folder / file, metadata={"format": "pt"})


def weight_map(folder: Path, **changes: str | None) -> dict[str, str]:
    return json.loads((folder / INDEX).read_text())["weight_map"]


def set_config(folder: Path, **changes: object) -> None:
    (folder / "config.json").write_text(json.dumps(json.loads((folder / "config.json").read_text()) | changes))


def other(tensor: Tensor) -> Tensor:
    """Another tensor of the same shape."""
    return (tensor.float() * 1.5 + 0.25).to(tensor.dtype)


def without(tensors: Tensors, *names: str) -> Tensors:
    return {name: tensor for name, tensor in tensors.items() if name not in names}


# Read: by the index, or because nothing else can be meant.


def sharded(folder: Path) -> Tensors:
    return of(folder)


def single(folder: Path) -> Tensors:
    return whole(folder)


def stale_copy_before(folder: Path) -> Tensors:
    tensors = of(folder)
    name = next(n for n, shard in weight_map(folder).items() if shard == SECOND)
    add(folder, FIRST, {name: other(tensors[name])})
    return tensors


def stale_copy_behind(folder: Path) -> Tensors:
    tensors = of(folder)
    name = next(n for n, shard in weight_map(folder).items() if shard == FIRST)
    add(folder, SECOND, {name: other(tensors[name])})
    return tensors


def stale_copy_of_another_shape(folder: Path) -> Tensors:
    tensors = of(folder)
    name = next(n for n, shard in weight_map(folder).items() if shard == SECOND)
    add(folder, FIRST, {name: torch.zeros(3, 5)})
    return tensors


def unnamed_tensor(folder: Path) -> Tensors:
    tensors = of(folder)
    add(folder, FIRST, {"model.layers.0.self_attn.stale_proj.weight": torch.ones(4, 4)})
    return tensors


def leftover_shards(folder: Path) -> Tensors:
    tensors = of(folder)
    add(folder, "model-00003-of-00003.safetensors", {NORM: other(tensors[NORM])})
    return tensors


def adapter_beside_shards(folder: Path) -> Tensors:
    add(folder, "adapter_model.safetensors", {"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": torch.ones(2, 4)})
    return of_index(folder)


def of_index(folder: Path) -> Tensors:
    found = weight_map(folder)
    return {name: load_file(folder / shard)[name] for name, shard in found.items()}


def adapter_beside_single(folder: Path) -> Tensors:
    tensors = whole(folder)
    add(folder, "adapter_model.safetensors", {"lora_A": torch.ones(2, 4)})
    return tensors


def consolidated_beside_shards(folder: Path) -> Tensors:
    add(folder, "consolidated.safetensors", {"tok_embeddings.weight": torch.ones(2, 4)})
    return of_index(folder)


def training_state_beside_shards(folder: Path) -> Tensors:
    add(folder, "optimizer.safetensors", {"exp_avg.0": torch.ones(2, 4)})
    (folder / INDEX).unlink()
    return of(folder)


def shards_without_index(folder: Path) -> Tensors:
    (folder / INDEX).unlink()
    return of(folder)


def another_name(folder: Path) -> Tensors:
    tensors = of(folder)
    save(folder, {"weights.safetensors": tensors})
    return tensors


def two_names(folder: Path) -> Tensors:
    tensors = of(folder)
    a, b = halves(tensors)
    save(folder, {"language.safetensors": a, "rest.safetensors": b})
    return tensors


def single_beside_old_shards_without_index(folder: Path) -> Tensors:
    tensors = {name: other(tensor) for name, tensor in of(folder).items()}
    a, b = halves(of(folder))
    save(folder, {SINGLE: tensors, FIRST: a, SECOND: b})
    return tensors


def variant_beside_single(folder: Path) -> Tensors:
    tensors = whole(folder)
    add(folder, "model.fp16-00001-of-00001.safetensors", {n: other(t).half() for n, t in tensors.items()})
    (folder / "model.fp16.safetensors.index.json").write_text(json.dumps({"weight_map": dict.fromkeys(tensors, "x")}))
    return tensors


def cache_links(folder: Path) -> Tensors:
    """Snapshot of the Hugging Face cache: every file a link into ../blobs."""
    tensors, blobs = of(folder), folder.parent / f"{folder.name}-blobs"
    blobs.mkdir()
    for number, path in enumerate(sorted(folder.iterdir())):
        path.rename(blobs / str(number))
        path.symlink_to(Path("..") / blobs.name / str(number))
    return tensors


def subfolder_with_another_model(folder: Path) -> Tensors:
    tensors = whole(folder)
    (folder / "checkpoint-5").mkdir()
    save_file({n: other(t) for n, t in tensors.items()}, folder / "checkpoint-5" / SINGLE)
    return tensors


def empty_shard(folder: Path) -> Tensors:
    tensors = of(folder)
    save(folder, {FIRST: tensors, SECOND: {}})
    return tensors


def single_named_by_its_index(folder: Path) -> Tensors:
    tensors = of(folder)
    save(folder, {SINGLE: tensors}, dict.fromkeys(tensors, SINGLE))
    return tensors


def pickle_beside_single(folder: Path) -> Tensors:
    tensors = whole(folder)
    (folder / "pytorch_model.bin").write_bytes(b"never read")
    return tensors


def resource_fork(folder: Path) -> Tensors:
    tensors = whole(folder)
    (folder / "._model.safetensors").write_bytes(b"\0\5\26\7")
    return tensors


def tied(folder: Path) -> Tensors:
    set_config(folder, tie_word_embeddings=True)
    return whole(folder, without(of(folder), HEAD))


def tied_with_equal_head(folder: Path) -> Tensors:
    set_config(folder, tie_word_embeddings=True)
    tensors = of(folder)
    whole(folder, tensors | {HEAD: tensors[EMBEDDING].clone()})
    return without(tensors, HEAD)


def tied_with_equal_head_in_a_shard_of_its_own(folder: Path) -> Tensors:
    set_config(folder, tie_word_embeddings=True)
    tensors = of(folder)
    rest = without(tensors, HEAD)
    save(folder, {FIRST: rest, SECOND: {HEAD: tensors[EMBEDDING].clone()}}, dict.fromkeys(rest, FIRST) | {HEAD: SECOND})
    return rest


def rotary_tables(folder: Path) -> Tensors:
    tensors = of(folder)
    whole(folder, tensors | {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": torch.ones(8) for i in range(2)})
    return tensors


def cache_scales(folder: Path) -> Tensors:
    tensors = of(folder)
    scales = {f"model.layers.{i}.self_attn.{leaf}": torch.ones(1) for i in range(2) for leaf in ("k_scale", "v_proj.output_scale")}
    whole(folder, tensors | scales)
    return tensors


def wide_norm(folder: Path) -> Tensors:
    tensors = of(folder)
    return whole(folder, tensors | {NORM: tensors[NORM].float()})


def promised_layers_absent(folder: Path) -> Tensors:
    set_config(folder, num_nextn_predict_layers=1)
    return of(folder)


def mtp(tensors: Tensors) -> Tensors:
    """The multi-token-prediction layer of a DeepSeek-V3 of two layers, whole."""
    layer = {n.replace("layers.1.", "layers.2."): t.clone() for n, t in tensors.items() if "layers.1." in n}
    norms = {f"model.layers.2.{name}.weight": torch.ones(64) for name in ("enorm", "hnorm", "shared_head.norm")}
    shared = {
        "model.layers.2.embed_tokens.weight": tensors[EMBEDDING].clone(),
        "model.layers.2.shared_head.head.weight": tensors[HEAD].clone(),
    }
    return layer | norms | shared | {"model.layers.2.eh_proj.weight": torch.ones(64, 128)}


def further_layer(folder: Path) -> Tensors:
    """A multi-token-prediction layer that config.json promises: copied by conversions, not trained."""
    set_config(folder, num_nextn_predict_layers=1)
    tensors = of(folder)
    return whole(folder, tensors | mtp(tensors))


def further_layer_without_shared_tensors(folder: Path) -> Tensors:
    """Engines take embedding and head of the model where the layer has none of its own."""
    set_config(folder, num_nextn_predict_layers=1)
    tensors = of(folder)
    own = {n: t for n, t in mtp(tensors).items() if "embed_tokens" not in n and "shared_head.head" not in n}
    return whole(folder, tensors | own)


def further_layer_with(how: Callable[[Tensors], Tensors], promised: int = 1) -> Change:
    """A multi-token-prediction layer that is not what it should be."""

    def change(folder: Path) -> None:
        set_config(folder, num_nextn_predict_layers=promised)
        tensors = of(folder)
        whole(folder, tensors | how(mtp(tensors)))

    return change


def adapter_settings_left(folder: Path) -> Tensors:
    """The settings of an adapter that was merged (or whose weights are pickled) beside the model."""
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": "base"}))
    return of(folder)


def adapter_with_settings(folder: Path) -> Tensors:
    tensors = adapter_beside_single(folder)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    return tensors


def fused_experts(folder: Path) -> Tensors:
    tensors = of(folder)
    whole(folder, fuse(tensors))
    return tensors


def fuse(tensors: Tensors, transposed: bool = False) -> Tensors:
    """Experts of every layer in the two 3-D tensors of transformers 5."""
    out = {n: t for n, t in tensors.items() if ".experts." not in n}
    for layer in range(2):
        base = f"model.layers.{layer}.mlp.experts."
        if f"{base}0.up_proj.weight" not in tensors:
            continue

        def stack(part: str, base: str = base) -> Tensor:
            return torch.stack([tensors[f"{base}{e}.{part}.weight"] for e in range(4)])

        out[f"{base}gate_up_proj"] = torch.cat([stack("gate_proj"), stack("up_proj")], dim=1)
        out[f"{base}down_proj"] = stack("down_proj")
        if transposed:
            out |= {f"{base}{part}": out[f"{base}{part}"].transpose(1, 2).contiguous() for part in ("gate_up_proj", "down_proj")}
    return out


# Refused.


def fine_tune_saved_over_shards(folder: Path) -> None:
    add(folder, SINGLE, {name: other(tensor) for name, tensor in of(folder).items()})


def in_two_files(folder: Path) -> None:
    tensors = of(folder)
    a, b = halves(tensors)
    save(folder, {FIRST: a, SECOND: b | {next(iter(a)): other(next(iter(a.values())))}})


def incomplete_numbers(folder: Path) -> None:
    (folder / INDEX).unlink()
    (folder / SECOND).unlink()


def two_numbered_sets(folder: Path) -> None:
    (folder / INDEX).unlink()
    a, b = halves(of(folder))
    add(folder, "old-00001-of-00001.safetensors", a | b)


def missing(*names: str) -> Change:
    def change(folder: Path) -> None:
        whole(folder, without(of(folder), *names))

    return change


def changed(name: str, how: Callable[[Tensor], Tensor]) -> Change:
    def change(folder: Path) -> None:
        tensors = of(folder)
        whole(folder, tensors | {name: how(tensors[name]).contiguous()})

    return change


def with_extra(**extra: object) -> Change:
    def change(folder: Path) -> None:
        whole(folder, of(folder) | {name.replace("__", "."): torch.ones(4) for name in extra})

    return change


def renamed(how: Callable[[str], str]) -> Change:
    def change(folder: Path) -> None:
        whole(folder, {how(name): tensor for name, tensor in of(folder).items()})

    return change


def configured(change: Change | None = None, **settings: object) -> Change:
    def both(folder: Path) -> Tensors | None:
        set_config(folder, **settings)
        return change(folder) if change is not None else None

    return both


def indexed(**changes: str) -> Change:
    def change(folder: Path) -> None:
        found = weight_map(folder) | {name.replace("__", "."): file for name, file in changes.items()}
        (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": found}))

    return change


def files_only(*names: str) -> Change:
    """No weights but these files."""

    def change(folder: Path) -> None:
        tensors = of(folder)
        save(folder, {})
        for name in names:
            if name.lower().endswith(".safetensors"):
                save_file(tensors, folder / name)
            else:
                (folder / name).write_bytes(b"{}")

    return change


def index_with_a_key_twice(folder: Path) -> None:
    text = (folder / INDEX).read_text()
    head, tail = text.split('"weight_map": {', 1)
    (folder / INDEX).write_text(f'{head}"weight_map": {{"{NORM}": "{FIRST}", {tail}')


def transposed_experts(folder: Path) -> None:
    whole(folder, fuse(of(folder), transposed=True))


def experts_in_both_forms(folder: Path) -> None:
    tensors = of(folder)
    fused = {n: t for n, t in fuse(tensors).items() if n not in tensors}
    whole(folder, tensors | fused)


def dangling_link(folder: Path) -> None:
    (folder / FIRST).unlink()
    (folder / FIRST).symlink_to("../blobs/not-there")
