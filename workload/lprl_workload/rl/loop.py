"""One RL step, top to bottom, and the run around it. Knows groups, not processes.

Order: the weights of step N are pushed before step N+1 generates; the first push comes before the first rollout; a step's
row is durable before its checkpoint is visible, so a resumed run finds a row for every step it does not redo.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

from lprl_api.model.formats import Bf16
from lprl_api.spec.topology import Stability
from lprl_api.text import shortened
from lprl_api.wire.progress import MESSAGE_CHARACTERS, DriverPhase
from lprl_api.wire.runconfig import RunConfig
from lprl_workload.checkpoint.store import CheckpointStore
from lprl_workload.data import Metrics, SyncReport
from lprl_workload.episode import BatchRef
from lprl_workload.metrics.metric import finite, reduce_metrics
from lprl_workload.metrics.progress import Reporter
from lprl_workload.metrics.reward_signal import watch
from lprl_workload.metrics.stability import Action, before_drift, observe
from lprl_workload.process.errors import TrainerLostError
from lprl_workload.rl.ahead import Ahead
from lprl_workload.rl.collect import Collected, Collector
from lprl_workload.rl.evaluating import Evaluations
from lprl_workload.rl.evaluation import Evaluator
from lprl_workload.rl.groups import RolloutGroup, TrainGroup
from lprl_workload.rl.prepare import measure, prepare
from lprl_workload.rl.records import EMPTY, Records
from lprl_workload.rl.recovery import Budget, ends_instead
from lprl_workload.rl.run_state import RunState
from lprl_workload.rl.saving import Saving
from lprl_workload.rl.serving import Serving
from lprl_workload.rl.step_row import StepLog, staleness, times, told, trained_on

log = logging.getLogger(__name__)
Outcome = Literal["finished", "suspended"]


class Loop:
    """A run: `run()` resumes or starts, steps until done, and survives lost engines and trainers within a budget."""

    def __init__(
        self,
        run: RunConfig,
        trainer: TrainGroup,
        rollout: RolloutGroup,
        collector: Collector,
        evaluator: Evaluator | None,
        store: CheckpointStore,
        records: Records,
        reporter: Reporter,
        load_from: Path | None = None,
        recorded_step: int = 0,
    ) -> None:
        """Put a run together. `load_from`: checkpoint to begin from without one of its own; `recorded_step`: of one known to exist."""
        self.run_config, self.state = run, RunState()
        self.resumed_from: int | None = None
        self.ready = False
        """Whether the trainer holds a state that a checkpoint could be made of."""
        self._trainer = trainer
        self._records, self._reporter = records, reporter
        self._saving = Saving(run, trainer, store, load_from, recorded_step)
        self._serving = Serving.of(run, trainer, rollout)
        self._device = self._serving.device
        self._ahead = Ahead(collector, self._serving, run.algorithm.max_staleness)
        self._evaluations = Evaluations(evaluator, self._serving, records, reporter, self._phase)
        self._trainers = Budget("trainer ranks", run.refill_steps)
        self._seconds: dict[str, float] = {}
        self._log = StepLog()

    def run(self, stop: Callable[[], bool], started: Callable[[int], None] = lambda step: None) -> Outcome:
        """Step until done; return early, checkpointed, when `stop()` or the operator's control asks. `started(step)` follows the resume."""
        with self._serving.together.trainer:
            try:
                return self._run(stop, started)
            finally:
                self._evaluations.close()
                self._ahead.close()

    def _run(self, stop: Callable[[], bool], started: Callable[[int], None]) -> Outcome:
        self.ready = rebuild = False
        while True:
            try:
                if rebuild:
                    self._device.make_way()
                    self._trainer.rebuild()
                    rebuild = False
                if not self.ready:
                    self._start()
                    started(self.state.step)
                    self.ready = True
                    self._reporter.update(message="")  # what was told of a loss is over
                if self.state.step >= self.steps:
                    self._checkpointed()
                    return "finished"
                if stop() or self._suspend_asked():
                    self._checkpoint()
                    self._checkpointed()
                    return "suspended"
                self._step(lambda: stop() or self._suspend_asked())
            except TrainerLostError as lost:
                self._saving.settle()
                self.ready, rebuild = False, True
                self._evaluations.drop()
                self._ahead.drop()
                if ends_instead(lost, stop(), self._suspend_asked()):
                    return "suspended"
                log.warning("trainer lost at step %d (%s); rebuilding from the last checkpoint", self.state.step, lost)
                self._trainers.spend(self.state.step, lost)
                self._reporter.phase(
                    "loading", trainer_restarts=self._trainers.total, message=shortened(f"trainer lost: {lost}", MESSAGE_CHARACTERS)
                )
            except Exception:
                self._saving.settle()
                raise

    @property
    def steps(self) -> int:
        """Steps of the run; the operator may raise what the job said first."""
        control = self._reporter.control
        return max(self.run_config.algorithm.steps, control.steps if control else 0)

    def _step(self, ends: Callable[[], bool]) -> None:
        before, busy = time.monotonic(), self._serving.busy.seconds
        self._seconds = {}
        step, first = self.state.step + 1, self.state.position
        with self._phase("generating"):
            batch = self._ahead.take(self.state, self.steps, ends)
        if batch is None:
            return
        with self._phase("held" if self._held else "training"):
            self._device.enter("training")
            metrics = self._train(batch.episodes)
        self._evaluations.before_push(step, self.steps)
        report = self._push(step)
        rewards = watch(self.state.rewards, batch.seen, last=step >= self.steps)
        self.state = replace(self.state, step=step, position=batch.position, weight_version=report.version, rewards=rewards)
        action = self._observe(metrics)
        timing = times(self._seconds, time.monotonic() - before, batch.generated_tokens, self._serving.busy.seconds - busy)
        timing |= staleness(step, batch.episodes, self._serving.made) | trained_on(first, batch.position)
        self._record(batch, metrics, report, timing)
        self._act(action)
        current, last = self.state.step == step, self.steps  # a rollback went back to an older step, evaluated and saved already
        begun = current and self._evaluations.begin(step, last)
        self._ahead.start(self.state, last)
        if current:
            if not begun:
                self._evaluations.make(step, last)
            if step >= last or step % self.run_config.checkpoint.every_steps == 0:
                self._checkpoint()

    def _train(self, batch: BatchRef) -> Metrics:
        """Do the optimizer steps of a rollout; while the guard holds updates, only measure the mismatch."""
        run = self.run_config
        if self._held:
            return measure(batch, self._trainer, run.sampling.temperature)[1]
        update, found = prepare(batch, run, self._trainer, self.steps)
        return reduce_metrics(self._trainer.train(update, number) for number in range(len(update.plan.steps))) | found

    def _push(self, step: int, least: int = 0) -> SyncReport:
        """Push the weights of `step` finished steps as the next version, `least` at least."""
        self._serving.trained_steps = step
        with self._phase("syncing"):
            return self._serving.push(max(self._serving.pushed + 1, least))

    def _start(self) -> None:
        """Resume from the newest intact checkpoint (of this run, else of `load_from`), or start; push before anything generates."""
        with self._phase("loading"):
            self._device.enter("training")
            folder, self.state = self._saving.resume()
            self._records.truncate_after(self.state.step if self._saving.saved else EMPTY)
            self.resumed_from = self.state.step if folder else None
            log.info(f"resumed from step {self.state.step}: {folder}" if folder else "no checkpoint: starting at step 0")
            self._trainer.set_correction(self.state.guard.corrected)
            self._serving.serve(Bf16() if self.state.effective_rollout == "bf16" else self.run_config.rollout_format)
        self._serving.doubtful = True
        self._push(self.state.step, least=self.state.weight_version)
        self._reporter.update(**self._records.last_step(), evaluation=self._records.last_evaluation())
        self._report_state()
        self._evaluations.resume(self.state, self._saving.saved is not None, self.steps)

    def _observe(self, metrics: Metrics) -> Action:
        settings = self._stability
        value = metrics.get("k3" if settings.metric == "k3" else "logprob_diff")
        if value is None:
            return "none"
        guard, action = observe(self.state.guard, settings, self.state.step, value)
        self.state = replace(self.state, guard=guard)
        return action

    def _act(self, action: Action) -> None:
        """Execute what the guard decided."""
        if action != "none":
            value = self.state.guard.value
            found = "is no number" if value is None else value
            log.warning("stability guard at step %d: %s (%s %s)", self.state.step, action, self._stability.metric, found)
        match action:
            case "rollback" if self._saving.can_go_back(before_drift(self.state.guard)):
                self._roll_back()
            case "correct" | "rollback":
                self._trainer.set_correction(True)
                self.state = replace(self.state, guard=replace(self.state.guard, state="corrected"))
            case "fallback-bf16":
                self._evaluations.settle()
                self._ahead.drop()
                self._serving.serve(Bf16())
                self.state = replace(self.state, effective_rollout="bf16", weight_version=self._push(self.state.step).version)
        self._report_state()

    def _roll_back(self) -> None:
        """Go back to the last checkpoint before the drift, keeping what the guard learned, and make that durable first."""
        guard = self.state.guard
        self._evaluations.drop()
        self._ahead.drop()
        self._device.enter("training")
        earlier = self._saving.go_back(before_drift(guard))
        self._trainer.set_correction(True)
        report = self._push(earlier.step)
        self.state = replace(earlier, guard=replace(guard, over=0), weight_version=report.version)
        self._checkpoint()
        self._checkpointed()
        self._saving.store.drop_after(self.state.step)
        self._records.truncate_after(self.state.step)
        self._evaluations.resume(self.state, True, self.steps)

    def _checkpoint(self) -> None:
        """Begin to write everything needed to go on exactly from here; the run goes on meanwhile."""
        self._evaluations.before_checkpoint(self.state.step, self.steps)
        with self._phase("checkpointing"):
            last = self.state.step >= self.steps
            if self._saving.exports(self.state, last):
                self._device.enter("sync")  # its weights are read
            self._saving.begin(self.state, last)
            self._device.enter("rollout")

    def _checkpointed(self) -> None:
        """Wait until the checkpoint that was begun is there."""
        with self._phase("checkpointing"):
            self._saving.finish()
        self._report_state()

    def _record(self, batch: Collected, metrics: Metrics, report: SyncReport, timing: Metrics) -> None:
        """Make the step's row durable, then tell the operator."""
        sync = {"quantization_error": report.relative_rms_error, "weight_version": float(report.version)}
        self._records.step(self.state.step, metrics | batch.metrics | timing | sync)
        self._log.tell(self.state.step, self.steps, metrics | batch.metrics | timing)
        self._records.rewards(self.state.rewards)
        self._reporter.update(
            reward=batch.metrics["reward"],
            episodes=batch.episodes_report,
            mismatch_k3=finite(metrics.get("k3")),
            logprob_diff=finite(metrics.get("logprob_diff")),
            seconds_left=timing["step_seconds"] * max(0, self.steps - self.state.step),
            dropped_episodes=self._ahead.dropped,
            **told(timing),
        )

    def _report_state(self) -> None:
        self._serving.step = self.state.step
        self._reporter.update(
            step=self.state.step,
            steps=self.steps,
            weight_version=self.state.weight_version,
            stability=self.state.guard.report(self._stability),
            reward_signal=self.state.rewards,
            effective_rollout=self.state.effective_rollout,
            engine_restarts=self._serving.budget.total,
            checkpoint=self._saving.reference(),
        )

    @contextmanager
    def _phase(self, phase: DriverPhase) -> Iterator[None]:
        """Report a phase and add its seconds to the step's."""
        self._reporter.phase(phase)
        self._evaluations.look()
        if self._saving.look():
            self._report_state()
        before = time.monotonic()
        yield
        self._seconds[phase] = self._seconds.get(phase, 0.0) + time.monotonic() - before

    @property
    def _held(self) -> bool:
        return self.state.guard.state == "held"

    @property
    def _stability(self) -> Stability:
        control = self._reporter.control
        return control.stability if control else self.run_config.stability

    def _suspend_asked(self) -> bool:
        control = self._reporter.control
        return control is not None and control.suspend
