"""What a trainer saves, while it trains on, and loads."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file
from tests.contract import trainer_bench
from tests.contract.trainer_bench import FORMATS, batch, make, save, step

from lprl_workload.process.errors import DamagedError
from lprl_workload.train import rank_actor
from lprl_workload.train.state import random_state

folders, case = trainer_bench.folders, trainer_bench.case


def test_what_is_saved_is_the_moment_it_was_begun_at(folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written only after the next step: the copy is what that step cannot reach."""
    actor = make(folders["qwen3-moe"], FORMATS["int4-qat"])
    step(actor, batch(2))
    trained, write = threading.Event(), rank_actor.write_snapshot

    def late(directory: Path, snapshot: Any) -> Any:
        assert trained.wait(180)
        return write(directory, snapshot)

    monkeypatch.setattr(rank_actor, "write_snapshot", late)
    actor.begin_save(tmp_path)
    assert actor.finish_save(wait=False) is None
    expected = step(actor, batch(3))
    trained.set()
    records = actor.finish_save(wait=True)
    assert records is not None and {record.path for record in records} == {path.name for path in tmp_path.iterdir()}
    other = make(folders["qwen3-moe"], FORMATS["int4-qat"])
    other.load(tmp_path, records)
    assert step(other, batch(3)) == expected


def test_a_failed_write_is_told_to_whoever_asks(folders: dict[str, Path], tmp_path: Path) -> None:
    actor = make(folders["qwen3"], FORMATS["bf16"])
    actor.begin_save(tmp_path / "nothing")
    for _ in range(2):
        with pytest.raises(FileNotFoundError, match="nothing"):
            actor.finish_save(wait=True)


def test_a_flipped_bit_is_found_by_the_rank_that_loads_it(folders: dict[str, Path], tmp_path: Path) -> None:
    actor = make(folders["qwen3"], FORMATS["bf16"])
    records = save(actor, tmp_path)
    path = tmp_path / "trainer-00000-of-00001.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-100] ^= 1
    path.write_bytes(raw)
    with pytest.raises(DamagedError, match=r"trainer-00000-of-00001.safetensors"):
        actor.load(tmp_path, records)
    actor.load(tmp_path)  # nobody said what it should be


def test_a_checkpoint_of_the_version_before_is_loaded(case: Any, tmp_path: Path) -> None:
    """One rank wrote everything, through the library."""
    actor, folder, fmt = case
    step(actor, batch(2))
    stem, document = tmp_path / "trainer-00000-of-00001", {}
    masters = actor.masters
    fields = {"master": "value", "exp_avg": "moment", "exp_avg_sq": "second_moment"}
    save_file(
        {f"{name}|{key}": getattr(m, field).clone() for name, m in masters.items.items() for key, field in fields.items()},
        stem.with_suffix(".safetensors"),
    )
    document = {"schema": 1, "optimizer_steps": 1, "adam_steps": masters.adam_steps, "random": random_state()}
    rows = {name: [m.first, m.last, m.parameter.shape[0]] for name, m in masters.items.items()}
    stem.with_suffix(".json").write_text(json.dumps(document | {"rows": rows}))
    expected = step(actor, batch(3))
    other = make(folder, fmt)
    other.load(tmp_path)
    assert step(other, batch(3)) == expected
