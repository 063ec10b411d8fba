"""The run's durable records: metrics.jsonl, evaluations.jsonl, the optional sinks beside them."""

import logging
import math
import time
from collections.abc import Mapping
from pathlib import Path

from lprl_api.wire.progress import EvaluationResult, RewardSignal
from lprl_workload.metrics.reward_signal import told
from lprl_workload.metrics.sinks import JsonlFile, Sink

log = logging.getLogger(__name__)
REWARDS_FILE = "rewards.json"
EMPTY = -1
"""truncate_after(EMPTY): a run without a checkpoint starts its series anew, the evaluation of step 0 included."""
COLUMNS = (
    "reward", "reward_std", "loss", "pg_loss", "entropy", "kl", "clip_fraction", "logprob_diff", "k3", "tis_clip_fraction",
    "grad_norm", "learning_rate", "tokens_per_second", "response_tokens", "truncated_fraction", "sync_seconds",
    "generate_seconds", "train_seconds", "step_seconds", "quantization_error", "weight_version",
)  # fmt: skip
"""Columns every row has (null where a step has no such number), before whatever else the trainer measures."""


class Records:
    """Everything a step leaves behind on disk and in tracking services."""

    def __init__(self, folder: Path, attempt: int) -> None:
        self.metrics = JsonlFile(folder / "metrics.jsonl")
        self.evaluations = JsonlFile(folder / "evaluations.jsonl")
        self._folder, self._attempt, self._told = folder, attempt, ""
        self._sinks: tuple[Sink, ...] = ()

    def attach(self, sinks: list[Sink]) -> None:
        """Add the optional sinks, known once the resumed step is."""
        self._sinks = (*self._sinks, *sinks)

    def truncate_after(self, step: int) -> None:
        """Drop what later steps of an interrupted attempt left."""
        self.metrics.truncate_after(step)
        self.evaluations.truncate_after(step)

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """Record a finished step; durable when this returns."""
        # JSON has no NaN: a number that is none (checkForNan is off) is recorded as missing.
        row = dict.fromkeys(COLUMNS) | {name: value if math.isfinite(value) else None for name, value in values.items()}
        self.metrics.append({"attempt": self._attempt, "step": step, "time": time.time(), **row})
        for sink in self._sinks:
            sink.write(step, row)

    def evaluation(self, result: EvaluationResult) -> None:
        """Record an evaluation; durable when this returns."""
        self.evaluations.append(result.model_dump())
        for sink in self._sinks:
            named = {f"evaluation_pass_at_{k}": value for k, value in result.pass_at.items()}
            sink.write(result.step, {"evaluation_reward": result.reward, **named})

    def last_step(self) -> dict[str, float | None]:
        """Return what reports tell of the newest recorded step, as its row has it; empty before the first."""
        rows = self.metrics.rows()
        told = {"reward": "reward", "mismatch_k3": "k3", "logprob_diff": "logprob_diff"}
        return {field: rows[-1].get(column) for field, column in told.items()} if rows else {}

    def rewards(self, signal: RewardSignal) -> None:
        """Tell, once known, that all rewards of the run are the same: in the log and in rewards.json, for the report; or not any more."""
        if signal.state in (self._told, "measuring"):
            return
        before, self._told = self._told, signal.state
        file = self._folder / REWARDS_FILE
        if signal.state == "varied":
            file.unlink(missing_ok=True)
            if before:
                log.info("rewards differ from here on")
        else:
            aside = file.with_suffix(".tmp")
            aside.write_text(signal.model_dump_json(by_alias=True, indent=1), encoding="utf-8")
            aside.replace(file)
            found = f"every reward of the first {signal.steps} steps is {signal.value:g} ({signal.responses} responses)"
            log.warning("%s: nothing can be learned from that; as the scorer saw them:\n%s", found, "\n".join(told(signal.samples)))

    def last_evaluation(self) -> EvaluationResult | None:
        """Return the newest recorded evaluation."""
        rows = self.evaluations.rows()
        return EvaluationResult.model_validate(rows[-1]) if rows else None

    def close(self) -> None:
        """Close the optional sinks."""
        for sink in self._sinks:
            sink.close()
