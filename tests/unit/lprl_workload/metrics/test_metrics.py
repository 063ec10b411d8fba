"""Reductions, mismatch, pass@k, the JSONL record and sinks that may fail."""

import itertools
import json
import logging
import math
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch

from lprl_api.spec.operations import Tracking
from lprl_workload.episode import Float32
from lprl_workload.metrics.metric import Reduction, mean_std, reduce_metrics, reduce_one
from lprl_workload.metrics.pass_at import pass_at_k
from lprl_workload.metrics.sinks import Guarded, JsonlFile, JsonlSink, PrometheusSink, Row, TensorBoardSink
from lprl_workload.metrics.tracking import make_sinks
from lprl_workload.train.diagnostics import mismatch_k3
from lprl_workload.train.mismatch import MismatchSums, mismatch


@pytest.mark.parametrize(
    ("kind", "want"), [(Reduction.MEAN, 2.0), (Reduction.MAX, 4.0), (Reduction.SUM, 6.0), (Reduction.LAST, 4.0)], ids=lambda x: str(x)
)
def test_reduce_one(kind: Reduction, want: float) -> None:
    assert reduce_one(kind, [1.0, 1.0, 4.0]) == want


def test_reduce_metrics_takes_the_last_learning_rate_and_means() -> None:
    assert reduce_metrics([{"loss": 1.0, "learning_rate": 1.0}, {"loss": 3.0, "learning_rate": 2.0, "rare": 5.0}]) == {
        "loss": 2.0,
        "learning_rate": 2.0,
        "rare": 5.0,
    }
    assert mean_std([1.0, 3.0]) == (2.0, 1.0) and mean_std([]) == (0.0, 0.0)


def test_the_largest_of_several_steps_is_the_largest_and_skipped_ones_are_counted() -> None:
    parts = [{"logprob_diff_max": 0.1, "skipped_steps": 0.0}, {"logprob_diff_max": 9.0, "skipped_steps": 1.0}] * 2
    assert reduce_metrics(parts) == {"logprob_diff_max": 9.0, "skipped_steps": 2.0}


@pytest.mark.parametrize("broken", [math.nan, -math.inf, math.inf], ids=["nan", "minus infinity", "infinity"])
def test_one_log_probability_that_is_no_number_is_not_clamped_away(broken: float) -> None:
    found = mismatch(np.array([-1.0, -2.0], np.float32), np.array([-1.5, broken], np.float32)).means()
    assert not math.isfinite(found["logprob_diff"]) and not math.isfinite(found["k3"])


@pytest.mark.parametrize("rollout", [-0.5, -40.0, 0.0, math.nan, -math.inf, math.inf])
def test_both_sides_count_k3_alike(rollout: float) -> None:
    """Of a whole rollout, and of the micro-batches of a step."""
    whole = mismatch(np.array([-1.0], np.float32), np.array([rollout], np.float32)).k3
    part = mismatch_k3(torch.tensor([-1.0], dtype=torch.float64), torch.tensor([rollout], dtype=torch.float64)).item()
    assert math.isfinite(whole) == math.isfinite(part)
    assert not math.isfinite(whole) or whole == pytest.approx(part)


def test_mismatch_by_hand() -> None:
    def row(*values: float) -> Float32:
        return np.array(values, np.float32)

    found = (mismatch(row(-1.0, -2.0), row(-1.5, -2.0)) + mismatch(row(-1.0), row(-0.5))).means()
    assert found["logprob_diff"] == pytest.approx(1.0 / 3)
    assert found["k3"] == pytest.approx((math.exp(0.5) - 1.5 + math.exp(-0.5) - 0.5) / 3)
    assert MismatchSums().means() == {"logprob_diff": 0.0, "k3": 0.0}
    assert math.isfinite(mismatch(row(0.0), row(-1e6)).k3)
    for broken in (math.nan, -math.inf):
        assert not math.isfinite(mismatch(row(-1.0), row(broken)).means()["logprob_diff"]), "no number stays no number"


@pytest.mark.parametrize(("n", "c", "k"), [(4, 0, 2), (4, 1, 2), (4, 3, 2), (4, 4, 4), (5, 2, 1), (3, 1, 3)])
def test_pass_at_k_is_the_share_of_subsets_with_a_correct_one(n: int, c: int, k: int) -> None:
    subsets = list(itertools.combinations([True] * c + [False] * (n - c), k))
    assert pass_at_k(n, c, k) == pytest.approx(sum(any(s) for s in subsets) / len(subsets))


def test_pass_at_k_refuses_more_than_there_are() -> None:
    with pytest.raises(ValueError, match="pass@3 needs 3"):
        pass_at_k(2, 1, 3)


def test_jsonl_is_cut_back_and_survives_a_torn_line(tmp_path: Path) -> None:
    sink = JsonlSink(tmp_path / "metrics.jsonl")
    for step in range(1, 5):
        sink.write(step, {"reward": step / 3})
    with sink.file.path.open("ab") as file:
        file.write(b'{"step": 5, "rew')
    assert [row["step"] for row in sink.file.rows()] == [1, 2, 3, 4]
    sink.file.truncate_after(2)
    sink.write(3, {"reward": 0.1})
    assert [json.loads(line) for line in sink.file.path.read_text().splitlines()] == [
        {"step": 1, "reward": 1 / 3},
        {"step": 2, "reward": 2 / 3},
        {"step": 3, "reward": 0.1},
    ]


def test_jsonl_refuses_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        JsonlFile(tmp_path / "x").append({"loss": math.nan})


class Failing:
    def __init__(self) -> None:
        self.calls = 0

    def write(self, step: int, row: Row) -> None:
        self.calls += 1
        raise ConnectionError("no server")

    def close(self) -> None:
        self.calls += 1


def test_a_failing_sink_is_logged_once_and_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    sink = Failing()
    guarded = Guarded("mlflow", sink)
    with caplog.at_level(logging.WARNING):
        for step in range(3):
            guarded.write(step, {})
        guarded.close()
    assert sink.calls == 1
    assert [record.getMessage() for record in caplog.records] == [
        "metrics sink mlflow: write failed (no server); it is off for the rest of this attempt"
    ]


def test_a_sink_that_cannot_start_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "mlflow", None)
    tracking = Tracking.model_validate({"tensorboard": False, "mlflow": {"trackingUri": "http://127.0.0.1:1"}})
    with caplog.at_level(logging.WARNING):
        assert make_sinks(tracking, "job", 1, tmp_path, 0) == []
    assert "metrics sink mlflow cannot start" in caplog.text


def test_tensorboard_holds_the_numbers(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    sink = TensorBoardSink(tmp_path, 0)
    sink.write(1, {"reward": 0.25, "kl": None})
    sink.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert events.Tags()["scalars"] == ["reward"]
    assert [(e.step, e.value) for e in events.Scalars("reward")] == [(1, 0.25)]


def test_prometheus_serves_the_newest_numbers_on_loopback() -> None:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    sink = PrometheusSink(port, "127.0.0.1", "job")
    sink.write(1, {"reward": 0.5, "kl": None})
    sink.write(2, {"reward": 0.75})
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()
    sink.close()
    assert 'lprl_reward{job="job"} 0.75' in text and 'lprl_step{job="job"} 2.0' in text and "lprl_kl" not in text
