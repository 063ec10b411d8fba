"""docs/precision/real: what was recorded on a GPU, the table made of it, and what the product says because of it."""

import json
from typing import Any

import pytest
from benchmarks.real import guard, tables
from benchmarks.real.cases import MATCHED, ROOT
from benchmarks.real.run import SHORT_RUN, rise

from lprl_api.catalog.mismatch import ROWS, Row
from lprl_api.spec.precision import Rollout, Training
from lprl_api.spec.topology import Stability

REAL = ROOT / "docs" / "precision" / "real"
RUNS: list[dict[str, Any]] = json.loads((REAL / "results.json").read_text())["runs"]
SERVED: list[dict[str, Any]] = json.loads((REAL / "served.json").read_text())["rows"]


def served(engine: str, training: str) -> dict[str, Any]:
    (found,) = (row for row in SERVED if (row["engine"], row["precision"]["training"]) == (engine, training))
    return found


def of_pair(row: Row) -> list[dict[str, Any]]:
    """Return the measured rows behind one line of the product's table."""
    wanted = (row.training, row.rollout, row.activations)
    return [r for r in SERVED if (r["precision"]["training"], r["precision"]["rollout"], _activations(r)) == wanted]


def _activations(row: dict[str, Any]) -> str:
    return str(row["precision"]["fp8"]["activations"]) if "fp8" in row["precision"] else ""


def test_the_page_is_what_the_files_say() -> None:
    assert (REAL / "results.md").read_text() == tables.markdown(REAL)


def test_the_steps_are_those_of_the_runs() -> None:
    found = {(pair, seed): values for pair, seed, values in guard.recorded(REAL / "steps.csv", "k3")}
    assert {key: sum(values) / len(values) for key, values in found.items()} == {
        (run["mode"], run["seed"]): pytest.approx(run["k3_mean"], rel=1e-3) for run in RUNS
    }
    assert {len(values) for values in found.values()} == {100}


@pytest.mark.parametrize(("metric", "column"), [("k3", "k3"), ("logprob-diff", "logprob_diff")])
def test_the_guard_alarms_at_unmatched_int4_and_at_nothing_else(metric: str, column: str) -> None:
    settings = Stability.model_validate({"metric": metric})
    alarms = {
        (pair, seed): guard.replay(pair, seed, values, settings).alarm for pair, seed, values in guard.recorded(REAL / "steps.csv", column)
    }
    assert {key[0] for key, alarm in alarms.items() if alarm is not None} == {"bf16/int4 g64"}
    assert [alarm for (pair, _), alarm in alarms.items() if pair == "bf16/int4 g64"] == [3, 3, 3]
    assert set(MATCHED) <= {pair for pair, _ in alarms}


def test_without_the_absolute_limit_unmatched_int4_would_pass_for_normal() -> None:
    settings = Stability(absolute_limit=None)
    assert {guard.replay(*run, settings).alarm for run in guard.recorded(REAL / "steps.csv", "k3")} == {None}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.training}-{row.rollout}-{row.activations}")
def test_what_a_plan_expects_is_what_was_measured(row: Row) -> None:
    k3 = [r["k3"] for r in of_pair(row)]
    answers = [r["effective_sample_size_sequences"] for r in of_pair(row)]
    assert (float(f"{min(k3):.2g}"), float(f"{max(k3):.2g}")) == row.k3
    assert (round(min(answers), 2), round(max(answers), 2)) == row.answers


def test_no_measured_row_is_left_out_of_the_plan() -> None:
    assert sum(len(of_pair(row)) for row in ROWS) == len(SERVED)


def test_fp8_qat_is_nearer_to_a_w8a8_engine_than_fp8_and_at_the_floor_of_a_weight_only_one() -> None:
    floor = served("bf16", "bf16")["k3"]
    assert served("fp8-block", "fp8-qat")["k3"] < 0.7 * served("fp8-block", "fp8")["k3"]
    assert served("fp8-block-weight-only", "fp8-qat")["k3"] <= 2 * floor
    assert served("fp8-tensor-weight-only", "fp8-qat")["k3"] <= 2 * floor
    assert all(served(f"int4-g{group}", "int4-qat")["k3"] <= 2 * floor for group in (32, 64, 128))


def test_every_pair_of_the_product_was_trained_or_is_refused() -> None:
    trained = {run["mode"].split(" ")[0] for run in RUNS}
    assert trained == {f"{row.training}/{row.rollout}" for row in ROWS}
    assert {Training.FP8_QAT, Training.INT4_QAT} <= {row.training for row in ROWS} and Rollout.INT4 in {row.rollout for row in ROWS}


def test_every_recorded_run_had_risen_beyond_noise_at_the_length_of_a_run_on_a_cpu() -> None:
    steps = SHORT_RUN["steps"]
    runs = [(pair, values[:steps]) for pair, _, values in guard.recorded(REAL / "steps.csv", "reward")]
    assert [pair for pair, values in runs if not rise(pair, [{"reward": reward} for reward in values])[0]] == []
