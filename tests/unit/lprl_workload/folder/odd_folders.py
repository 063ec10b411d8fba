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

from lprl_api.model.formats import Bf16, Fp8Block, Fp8Channel, Fp8Tensor, Int4Group, WeightFormat
from lprl_api.spec.precision import Scope

Tensors = dict[str, Tensor]
FORMATS: dict[str, WeightFormat] = {
    "bf16": Bf16(),
    "fp8": Fp8Block(),
    "channel": Fp8Channel(),
    "tensor": Fp8Tensor(),
    "experts": Int4Group(group_size=32, scope=Scope.ROUTED_EXPERTS),
    "int4": Int4Group(group_size=32, scope=Scope.ALL_LINEAR),
}
INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
UP, Q, NORM, HEAD = (
    "model.layers.0.mlp.up_proj.weight",
    "model.layers.0.self_attn.q_proj.weight",
    "model.norm.weight",
    "lm_head.weight",
)
EXPERTS = "model.layers.1.mlp.experts."
EMBEDDING = "model.embed_tokens.weight"
Change = Callable[[Path], Tensors | None]


def set_config(folder: Path, **changes: object) -> None:
    (folder / "config.json").write_text(json.dumps(json.loads((folder / "config.json").read_text()) | changes))


def without(tensors: Tensors, *names: str) -> Tensors:
    return {name: tensor for name, tensor in tensors.items() if name not in names}


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


def other(tensor: Tensor) -> Tensor:
    """Another tensor of the same shape."""
    return (tensor.float() * 1.5 + 0.25).to(tensor.dtype)


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
