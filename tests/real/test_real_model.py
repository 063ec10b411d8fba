"""The real model: what its folder answers, what a conversion does to its weights, two steps of a matched and an unmatched pair.

Needs `make setup-real`. K3 ranges are of two steps with 8 samples on a CPU, wide enough for another machine's last bits.
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import pytest
from benchmarks.real.cases import PAIRS, RealCase
from benchmarks.training import Result, Running, result_of

from lprl_fixtures.smollm2 import ask, write_smollm2

TWO_STEPS = {"steps": 2, "rolloutBatchSize": 4, "samplesPerPrompt": 2}
LIMIT_S = 600


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("smollm2")
    assert write_smollm2(folder) == 269030016
    return folder


def test_the_folder_answers_questions(model: Path) -> None:
    answers = ask(model)
    assert [answer.question for answer in answers if not answer.right] == [], answers


@pytest.mark.parametrize(("to", "error"), [("fp8-block", 0.0264), ("fp8-channel", 0.0263), ("int4-group", 0.1127)])
def test_a_conversion_rounds_its_weights_as_measured(model: Path, tmp_path: Path, to: str, error: float) -> None:
    more = ["--group-size", "64"] if to == "int4-group" else []
    command = [sys.executable, "-m", "lprl_workload", "convert-all", str(model), str(tmp_path / "out"), "--to", to, *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 0, done.stderr
    verify = [sys.executable, "-m", "lprl_workload", "verify", str(tmp_path / "out"), "--source", str(model), "--output", "json"]
    checked = subprocess.run(verify, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert checked.returncode == 0, checked.stderr
    found = [t["relativeRmsError"] for t in json.loads(checked.stdout)["tensors"] if t["relativeRmsError"]]
    assert len(found) == 210 and median(found) == pytest.approx(error, rel=0.02)


def two_steps(model: Path, folder: Path, label: str) -> Result:
    pair = next(pair for pair in PAIRS if pair.label == label)
    case = RealCase(pair, 0, model, False, "add1", TWO_STEPS)
    run = Running(case, folder, threads=2)
    end = time.monotonic() + LIMIT_S
    while (code := run.poll()) is None and time.monotonic() < end:
        time.sleep(0.5)
    run.stop()
    assert code == 0, run.tail()
    return result_of(case, folder)


@pytest.mark.parametrize(
    ("label", "low", "high"),
    [
        ("int4-qat/int4 g64", 0.0, 1e-8),
        ("fp8-qat/fp8 weight-only", 0.0, 1e-8),
        ("bf16/fp8", 5e-3, 0.3),
        ("bf16/int4 g64", 0.05, 10.0),
    ],
)
def test_matched_pairs_have_no_mismatch_and_unmatched_ones_what_was_measured(
    model: Path, tmp_path: Path, label: str, low: float, high: float
) -> None:
    figures = two_steps(model, tmp_path / "run", label).figures
    assert low <= figures.k3_mean <= high and figures.steps == 2
