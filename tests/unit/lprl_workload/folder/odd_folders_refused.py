"""Odd model folders that are refused: what is missing, contradicts itself, or is of another model."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from tests.unit.lprl_workload.folder.odd_folders import (
    FIRST,
    INDEX,
    NORM,
    SECOND,
    SINGLE,
    Change,
    Tensors,
    add,
    halves,
    of,
    other,
    save,
    set_config,
    weight_map,
    whole,
    without,
)
from tests.unit.lprl_workload.folder.odd_folders_layers import fuse
from torch import Tensor

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
