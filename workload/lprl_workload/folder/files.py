"""Which files of a folder are the model: decided from names and the index alone, for a folder here and for one that is still remote.

an index (model.safetensors.index.json)   the files it names; a model.safetensors beside it that it does not name is another
model (transformers reads that one): refused
model.safetensors, no index               that file
neither                                   all other .safetensors files, where they can only be one model: one numbered set,
complete, and no tensor twice (seen when they are read)
"""

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from lprl_api.errors import UserError

INDEX_FILE = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"
SUFFIX = ".safetensors"
INDEX_REMEDY = "its files do not belong together: download or copy the model again, config.json, index and all shards"
COMPLETE = "complete the download"
_NUMBERED = re.compile(r"^(.*)-(\d+)-of-(\d+)\.safetensors$")
_NOT_MODEL = re.compile(r"^(?:adapter|optimizer|optim|scheduler|training|trainer|random_states|rng_state|ema)(?:[_.-].*)?\.safetensors$")
"""Files that training tools put beside a model: LoRA adapters and training state."""
ADAPTER_FILE = "adapter_config.json"
"""What PEFT writes beside an adapter's weights. transformers with PEFT then loads the base model it names, and the adapter."""
_PICKLED = (".bin", ".pt", ".pth", ".ckpt")
MAX_SHOWN = 3

Choice = tuple[tuple[str, ...], tuple[str, ...]]
"""(files that count, sorted; notes on those that do not)."""


def choose_files(place: str, names: Collection[str], weight_map: Mapping[str, str] | None) -> Choice:
    """Return which of a folder's files (`names`, at its top) hold the model.

    Args:
        place: the folder, for messages.
        names: plain file names.
        weight_map: the index's, None without an index.

    Raises:
        UserError: there are none, one that the index names is missing, or they can be read as two models.

    """
    files, notes = _choose(place, names, weight_map)
    left = f"{ADAPTER_FILE}: the adapter beside the model is not applied (transformers with PEFT loads the base model it names): remove it"
    return files, (*notes, left) if ADAPTER_FILE in names else notes


def _choose(place: str, names: Collection[str], weight_map: Mapping[str, str] | None) -> Choice:
    weights = sorted(name for name in names if name.endswith(SUFFIX) and not name.startswith("."))
    if weight_map is not None:
        return _by_index(place, weights, weight_map)
    if SINGLE_FILE in weights:
        return (SINGLE_FILE,), _not_read(weights, (SINGLE_FILE,), f"{SINGLE_FILE} is the model")
    if variants := sorted(name for name in names if name.endswith(f"{SUFFIX}.index.json")):
        what = f"{place}: no {SINGLE_FILE} and no {INDEX_FILE}; {variants[0]} is the index of a variant"
        raise UserError(what, f"if the variant is what you want, put it into a folder of its own with the index named {INDEX_FILE}")
    found = tuple(name for name in weights if not _NOT_MODEL.match(name))
    if not found:
        raise _nothing(place, names)
    _check_numbers(place, found)
    reason = "adapters and training state are not the model"
    named = f"read although there is no {INDEX_FILE} and none is called {SINGLE_FILE} (transformers does not): {shown(found)}"
    return found, (named, *_not_read(weights, found, reason))


def _by_index(place: str, weights: Collection[str], weight_map: Mapping[str, str]) -> Choice:
    named = tuple(sorted(set(weight_map.values())))
    for name in named:
        if Path(name).name != name or not name.endswith(SUFFIX) or name.startswith("."):
            raise UserError(f"{place}/{INDEX_FILE}: shard {name!r} is no plain .safetensors file name", INDEX_REMEDY)
    if SINGLE_FILE in weights and SINGLE_FILE not in named:
        raise UserError(
            f"{place}: two models: transformers reads {SINGLE_FILE}, {INDEX_FILE} names {shown(named)}",
            f"remove {SINGLE_FILE}, or, where it is the model (a fine-tune saved over its base), remove {INDEX_FILE} and the shards",
        )
    for name in named:
        if name not in weights:
            other = next((found for found in weights if found.lower() == name.lower()), None)
            remedy = f"rename {other}: upper and lower case differ" if other else COMPLETE
            raise UserError(f"{place}/{name}: missing, but named by {INDEX_FILE}", remedy)
    return named, _not_read(weights, named, f"{INDEX_FILE} does not name them")


def _check_numbers(place: str, names: Iterable[str]) -> None:
    """Refuse numbered files that are not one complete set. Raises UserError."""
    sets: dict[tuple[str, str], set[int]] = {}
    for name in names:
        if found := _NUMBERED.match(name):
            sets.setdefault((found[1], found[3]), set()).add(int(found[2]))
    if len(sets) > 1:
        listed = " and ".join(f"{prefix}-*-of-{count}{SUFFIX}" for prefix, count in sorted(sets))
        raise UserError(f"{place}: two models, {listed}, and no {INDEX_FILE} says which", "keep one of them in the folder")
    for (prefix, count), numbers in sets.items():
        total = int(count)
        missing = next((n for n in range(1, total + 1) if n not in numbers), None)
        if missing is not None:
            name = f"{prefix}-{missing:0{len(count)}d}-of-{count}{SUFFIX}"
            raise UserError(f"{place}/{name}: missing ({len(numbers)} of {total} shards are there)", COMPLETE)
        if len(numbers) > total:
            raise UserError(f"{place}: {len(numbers)} files are numbered as {total}", "keep one model's shards in the folder")


def _nothing(place: str, names: Collection[str]) -> UserError:
    """Return the error of a folder without weights, by what it holds instead."""
    if ADAPTER_FILE in names:
        return UserError(
            f"{place}: no model, only an adapter ({ADAPTER_FILE})", "name the folder of the base model, or merge the adapter into it first"
        )
    for name in sorted(names):
        if name.lower().endswith(SUFFIX) and not name.endswith(SUFFIX):
            return UserError(f"{place}: no .safetensors files; {name} is written in another case", f"rename it to {SINGLE_FILE}")
        if name.endswith(SUFFIX):
            return UserError(f"{place}: no model, only {name}", "name the folder of the base model, or merge the adapter into it first")
        if name.endswith(_PICKLED):
            remedy = "convert the model to safetensors first; pickled weights are never read"
            return UserError(f"{place}: no .safetensors files, only pickled ones such as {name}", remedy)
        if name.endswith(".gguf"):
            return UserError(f"{place}: no .safetensors files; {name} is GGUF", "name the Hugging Face folder it was made from")
    return UserError(f"{place}: no .safetensors files", f"{COMPLETE}, or name the folder that holds the weights")


def _not_read(weights: Iterable[str], counted: Collection[str], reason: str) -> tuple[str, ...]:
    left = [name for name in weights if name not in counted]
    return (f"not read: {shown(left)}: {reason}",) if left else ()


def shown(names: Iterable[str]) -> str:
    """Return the first few names of a list, and how many more there are."""
    listed = list(names)
    more = len(listed) - MAX_SHOWN
    return ", ".join(listed[:MAX_SHOWN]) + (f" and {more} more" if more > 0 else "")
