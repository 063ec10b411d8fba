"""`lprl run` of the learning task with Megatron on two ranks and the torch engine, under a real Ray: it learns, and nothing is apart."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from benchmarks.backends.cases import EngineCase, by_lprl_run
from benchmarks.backends.tables import HELDOUT_BAR

from lprl_cli.runfolder import find

CASES: dict[str, tuple[EngineCase, dict[str, Any]]] = {
    "bf16-tp2-sp": (EngineCase("bf16/bf16", "qwen3", "torch", steps=75), {"tensor": 2, "sequenceParallel": True}),
    "int4-qat-ep2": (EngineCase("int4-qat/int4", "qwen3-moe", "torch", steps=100), {"expert": 2}),
}
ROUNDING = 1e-9
"""K3 of a step, as with the torch trainer (below 1e-12): sums of float32 in another order."""


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", CASES)
def test_it_learns_as_the_torch_trainer_does(name: str, tmp_path: Path) -> None:
    case, layout = CASES[name]
    path = case.write_inputs(tmp_path)
    manifest = yaml.safe_load(path.read_text())
    spec = manifest["spec"]
    spec["backends"]["trainer"] = "megatron"
    spec["topology"] |= {"nodes": 2}
    spec["topology"]["trainer"] |= layout
    path.write_text(yaml.safe_dump(manifest))
    done = subprocess.run(by_lprl_run(tmp_path, path), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    run = find(str(tmp_path / "state"))
    rows, heldout = run.rows("metrics.jsonl"), [row["reward"] for row in run.rows("evaluations.jsonl")]
    assert heldout[0] < 0.2 and heldout[-1] > HELDOUT_BAR, heldout
    assert max(row["k3"] for row in rows) < ROUNDING, max(row["k3"] for row in rows)
