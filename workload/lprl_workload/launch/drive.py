"""One attempt of a job, from its RunConfig to how it ended."""

import argparse
import json
import logging
import time
from dataclasses import dataclass
from functools import partial

from lprl_api.derived.run_folder import steps_of
from lprl_api.errors import UserError
from lprl_api.wire.runconfig import RunConfig
from lprl_workload.config import ResolvedPaths
from lprl_workload.launch.build import Assembled, assemble, lacking_now, local_groups, ray_groups
from lprl_workload.launch.departure import Departure
from lprl_workload.launch.export import export_all
from lprl_workload.metrics.progress import Reporter
from lprl_workload.metrics.tracking import make_sinks
from lprl_workload.process.blame import is_of_code, words_of
from lprl_workload.process.errors import StopAskedError

log = logging.getLogger(__name__)
NO_RESTART = "no other attempt would end differently: name another model, or mend the code or the image; the driver's log has the place"
"""Of an error of code before a first checkpoint: on 32 nodes a restart would only load the model again."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended that no error ended."""

    suspended: bool
    message: str


def drive(run: RunConfig, arguments: argparse.Namespace, reporter: Reporter, departure: Departure) -> Outcome:
    """Run until finished or suspended."""
    paths, attempt, in_process = ResolvedPaths.of(run), int(arguments.attempt), bool(arguments.in_process)
    stop = departure.asked
    before = time.monotonic()

    def waits(lacking: str) -> None:
        departure.listen()  # ray.init has put its own handler there
        if not lacking:
            reporter.phase("loading", message="")
            return
        reporter.update(message=f"waits for workers: {lacking}")
        if stop.is_set() or (reporter.control is not None and reporter.control.suspend):
            raise StopAskedError(f"asked to stop while waiting for workers: {lacking}")

    try:
        groups = local_groups if in_process else partial(ray_groups, waits=waits)
        assembled = assemble(run, paths, attempt, reporter, groups, arguments.recorded_step)
    except StopAskedError as error:
        log.info("%s", error)
        return Outcome(True, f"suspended after step {reporter.progress.step}")
    except Exception as error:
        if is_of_code(error) and not isinstance(error, UserError) and not steps_of(paths.run):
            log.exception("set-up failed")
            raise UserError(f"set-up: {words_of(error)}", NO_RESTART) from error
        raise
    departure.listen(watch=not in_process)
    departure.guard(lambda: assembled.loop.ready, partial(lacking_now, run))
    try:
        sinks = _SinksOnce(run, paths, attempt, assembled)
        if assembled.loop.run(stop.is_set, sinks.attach) == "suspended":
            departure.saved()
            return Outcome(True, f"suspended after step {reporter.progress.step}")
        reporter.phase("exporting")
        exports = export_all(run, paths, assembled.loop.state.step)
        reporter.update(export=f"{run.checkpoint.directory}/export" if exports else None, seconds_left=0.0)
        _summarise(run, paths, attempt, assembled, exports, time.monotonic() - before, reporter)
    finally:
        assembled.close()
    return Outcome(False, finish_message(assembled.loop.state.step, assembled.loop.resumed_from, assembled.resumed))


def finish_message(step: int, resumed_from: int | None, resumed: str) -> str:
    """Say that a run is done; of one in which nothing was left to do, that as well."""
    if resumed_from == step and resumed:
        return f"nothing was left to do: {resumed}, which made all {step} steps; raise algorithm.steps or take another name for more"
    return f"finished {step} steps" + (f", {resumed}" if resumed else "")


class _SinksOnce:
    """Attaches the optional sinks when the resumed step is known, and only once."""

    def __init__(self, run: RunConfig, paths: ResolvedPaths, attempt: int, assembled: Assembled) -> None:
        self._run, self._attempt, self._folder = run, attempt, paths.run
        self._records = assembled.records
        self._done = False

    def attach(self, step: int) -> None:
        if not self._done:
            self._records.attach(make_sinks(self._run.tracking, self._run.job_name, self._attempt, self._folder, step))
            self._done = True


def _summarise(
    run: RunConfig, paths: ResolvedPaths, attempt: int, assembled: Assembled, exports: list[str], seconds: float, reporter: Reporter
) -> None:
    """Write summary.json, aside and renamed."""
    rows = assembled.records.metrics.rows()
    evaluation = assembled.records.last_evaluation()
    progress = reporter.progress
    summary = {
        "job": run.job_name,
        "attempt": attempt,
        "steps": assembled.loop.state.step,
        "precision": run.precision.label,
        "effective_rollout": progress.effective_rollout or str(run.precision.rollout),
        "reward": rows[-1]["reward"] if rows else None,
        "first_reward": rows[0]["reward"] if rows else None,
        "evaluation": evaluation.model_dump() if evaluation else None,
        "exports": exports,
        "checkpoint": progress.checkpoint.path if progress.checkpoint else None,
        "attempt_seconds": seconds,
        "engine_restarts": progress.engine_restarts,
        "trainer_restarts": progress.trainer_restarts,
        "stability": progress.stability.model_dump(),
    }
    aside = paths.run / "summary.json.tmp"
    aside.write_text(json.dumps(summary, indent=2) + "\n")
    aside.replace(paths.run / "summary.json")
