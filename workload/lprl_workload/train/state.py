"""A trainer's state on disk: safetensors for tensors, JSON for numbers, no pickle.

Each rank that holds rows writes trainer-RANK-of-WORLD.safetensors (`NAME|master`, `NAME|exp_avg`, `NAME|exp_avg_sq`) and
every rank writes trainer-RANK-of-WORLD.json (its row ranges, step counts, random generators). Reading takes the rows it needs
from whatever files cover them, so another number of ranks can go on from the same checkpoint.
"""

import json
import random
import re
from pathlib import Path
from typing import Any

import numpy
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lprl_api.errors import UserError
from lprl_workload.hf.model import read_json
from lprl_workload.io.tensor_file import save_tensors
from lprl_workload.process.movement import here
from lprl_workload.train.masters import Master, Masters

SCHEMA = 1
FILE = re.compile(r"^trainer-(\d{5})-of-(\d{5})\.json$")
FIELDS = {"master": "value", "exp_avg": "moment", "exp_avg_sq": "second_moment"}


def save_state(directory: Path, masters: Masters, rank: int, world: int, steps: int, writes_rows: bool) -> None:
    """Write this rank's files into the existing `directory`."""
    stem = directory / f"trainer-{rank:05d}-of-{world:05d}"
    held = {name: m for name, m in masters.items.items() if writes_rows and m.value.numel()}
    if held:
        tensors = {f"{name}|{key}": getattr(m, field).cpu().clone() for name, m in held.items() for key, field in FIELDS.items()}
        save_tensors(tensors, stem.with_suffix(".safetensors"))
    document = {
        "schema": SCHEMA,
        "optimizer_steps": steps,
        "adam_steps": masters.adam_steps,
        "rows": {name: [m.first, m.last, m.parameter.shape[0]] for name, m in held.items()},
        "random": random_state(),
    }
    stem.with_suffix(".json").write_text(json.dumps(document, sort_keys=True) + "\n")


def load_state(directory: Path, masters: Masters, rank: int, world: int) -> int:
    """Restore masters, optimizer and (where the same rank and world saved them) random generators; returns optimizer steps.

    Raises UserError naming what is missing or does not fit.
    """
    documents = {path: read_json(path) for path in sorted(directory.iterdir()) if FILE.match(path.name)}
    if not documents:
        raise UserError(f"{directory}: no trainer state (trainer-*-of-*.json)", "load from a step folder of a checkpoint")
    steps = {(int(d["optimizer_steps"]), int(d["adam_steps"]), int(d["schema"])) for d in documents.values()}
    if len(steps) > 1 or next(iter(steps))[2] != SCHEMA:
        raise UserError(
            f"{directory}: trainer files of different steps or schema {sorted(steps)}",
            "load another step, or start without this checkpoint",
        )
    optimizer_steps, adam_steps, _ = next(iter(steps))
    done = dict.fromkeys(masters.items, 0)
    for path, document in documents.items():
        if document["rows"]:
            _load_rows(path.with_suffix(".safetensors"), document["rows"], masters, done)
    for name, rows in done.items():
        if rows != masters.items[name].value.shape[0]:
            raise UserError(f"{directory}: rows of {name} are missing from the trainer state", "load another step: this one is not whole")
    masters.restore_steps(adam_steps)
    masters.refresh()
    own = directory / f"trainer-{rank:05d}-of-{world:05d}.json"
    if own in documents:
        restore_random_state(documents[own]["random"])
    return optimizer_steps


def _load_rows(file: Path, rows: dict[str, list[int]], masters: Masters, done: dict[str, int]) -> None:
    """Copy the rows this rank needs out of one file."""
    try:
        with safe_open(file, framework="pt", device="cpu") as shard:
            for name, (first, last, total) in rows.items():
                master = masters.items.get(name)
                if master is None or master.parameter.shape[0] != total:
                    raise UserError(f"{file}: {name} with {total} rows is not this model's", "load a checkpoint of the same model")
                low, high = max(first, master.first), min(last, master.last)
                if low < high:
                    for key, field in FIELDS.items():
                        _copy(shard.get_slice(f"{name}|{key}")[low - first : high - first], master, field, low, high)
                    done[name] += high - low
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file}: {error}", "load another step: this one is damaged") from error


def _copy(part: Tensor, master: Master, field: str, low: int, high: int) -> None:
    target: Tensor = getattr(master, field)[low - master.first : high - master.first]
    if target.shape != part.shape:
        raise UserError(
            f"{master.name}: the checkpoint has rows of shape {list(part.shape[1:])}, the model {list(target.shape[1:])}",
            "load a checkpoint of the same model",
        )
    target.copy_(part)
    here.tick()


def random_state() -> dict[str, Any]:
    """Return the state of the torch (CPU, and CUDA where used), python and numpy generators as JSON values."""
    kind, keys, position, has_gauss, gauss = numpy.random.get_state(legacy=True)
    version, internal, gauss_next = random.getstate()
    state = {
        "torch": torch.get_rng_state().numpy().tobytes().hex(),
        "python": [version, list(internal), gauss_next],
        "numpy": [kind, [int(k) for k in keys], int(position), int(has_gauss), float(gauss)],
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state().numpy().tobytes().hex()
    return state


def restore_random_state(state: dict[str, Any]) -> None:
    """Undo `random_state`."""
    torch.set_rng_state(_bytes(state["torch"]))
    version, internal, gauss_next = state["python"]
    random.setstate((version, tuple(internal), gauss_next))
    kind, keys, position, has_gauss, gauss = state["numpy"]
    numpy.random.set_state((kind, numpy.array(keys, dtype=numpy.uint32), position, has_gauss, gauss))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(_bytes(state["cuda"]))


def _bytes(text: str) -> Tensor:
    return torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8)
