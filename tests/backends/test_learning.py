"""The learning task with the torch trainer and a real SGLang, under a real Ray: a dense and a MoE model learn, and nothing is apart.

The other pairs, staleness and the tool take hours: `make engines`, docs/precision/engines/results.md.
"""

import subprocess
from pathlib import Path

import pytest
from benchmarks.backends.cases import EngineCase, by_lprl_run
from benchmarks.backends.tables import HELDOUT_BAR

from lprl_cli.runfolder import find

CASES = [EngineCase("fp8/fp8", "qwen3", "sglang"), EngineCase("int4-qat/int4", "qwen3-moe", "sglang")]
ROUNDING = 1e-6
"""K3 of a step: a code of an FP8 activation flips now and then, INT4 rounds float32 alone."""


@pytest.mark.slow  # not in `make test-backends`: make test-learning
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_it_learns_what_sglang_draws_and_scores_as_the_trainer_does(case: EngineCase, tmp_path: Path) -> None:
    done = subprocess.run(by_lprl_run(tmp_path, case.write_inputs(tmp_path)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    run = find(str(tmp_path / "state"))
    rows, heldout = run.rows("metrics.jsonl"), [row["reward"] for row in run.rows("evaluations.jsonl")]
    assert heldout[0] < 0.2 and heldout[-1] > HELDOUT_BAR, heldout
    assert max(row["k3"] for row in rows) < ROUNDING, max(row["k3"] for row in rows)
