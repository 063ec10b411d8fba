"""`python -m lprl_workload train`: the driver of one attempt, from RunConfig to exit code."""

import argparse
import json
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lprl_api.errors import UserError
from lprl_api.names import ENV_ATTEMPT, ExitCode, Reason
from lprl_api.text import one_line, shortened
from lprl_api.wire.progress import MESSAGE_CHARACTERS
from lprl_api.wire.runconfig import RunConfig
from lprl_workload.config import ResolvedPaths, load_run_config
from lprl_workload.launch.build import Assembled, assemble, lacking_now, local_groups, make_reporter, ray_groups
from lprl_workload.launch.departure import Departure
from lprl_workload.launch.export import export_all
from lprl_workload.metrics.progress import Reporter
from lprl_workload.metrics.tracking import make_sinks
from lprl_workload.process.arguments import Parser, called_as, count
from lprl_workload.process.errors import StopAskedError, TerminatedError
from lprl_workload.process.termination import ending_of, write_termination

log = logging.getLogger(__name__)


def set_up_logs() -> None:
    """Write messages from INFO on; of HTTP clients only warnings, or every sample that a server draws or judges were a line."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for name in ("httpx2", "httpcore2"):
        logging.getLogger(name).setLevel(logging.WARNING)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the arguments of `train`."""
    parser = Parser(prog=called_as("train"), description="Run one attempt of a job.")
    parser.add_argument("--config", type=Path, required=True, help="RunConfig, a JSON file")
    parser.add_argument("--attempt", type=count, help=f"number of this attempt, from 1; default ${ENV_ATTEMPT}, else 1")
    parser.add_argument(
        "--recorded-step", type=count, default=0, help="step of the checkpoint that an earlier attempt reported; default none"
    )
    parser.add_argument("--in-process", action="store_true", help="everything in this process, without Ray")
    arguments = parser.parse_args(argv)
    if arguments.attempt is None:
        arguments.attempt = _attempt_of_environment()
    return arguments


def _attempt_of_environment() -> int:
    try:
        return count(os.environ.get(ENV_ATTEMPT) or "1")
    except argparse.ArgumentTypeError as error:
        raise UserError(f"{ENV_ATTEMPT}: {error}", f"unset {ENV_ATTEMPT}, or pass --attempt") from error


def train_command(argv: Sequence[str]) -> int:
    """Run one attempt; returns an ExitCode. No traceback for wrong input."""
    arguments = parse(argv)
    set_up_logs()
    reporter: Reporter | None = None
    departure = Departure(lambda saved, why: _vanish(reporter, saved, why))
    try:
        run = load_run_config(arguments.config)
        reporter = make_reporter(run, arguments.attempt)
        outcome = drive(run, arguments, reporter, departure)
    except (Exception, SystemExit) as error:  # a reward function that leaves by sys.exit(0) must not look like success
        ending = ending_of(error, Reason.DRIVER_CRASHED)
        if departure.asked.is_set() and ending.code in (ExitCode.CRASH, ExitCode.PROGRAM_ERROR, ExitCode.TRAINER_LOST):
            ending = ending_of(TerminatedError(f"asked to end, and no checkpoint could be made: {ending.message}"), Reason.DRIVER_CRASHED)
        log.error("%s: %s", ending.reason, ending.text, exc_info=error if ending.unexpected else None)
        return _end(reporter, ending.code, ending.reason, ending.text, ending.owner)
    if outcome.suspended:
        return _end(reporter, ExitCode.SUSPENDED, Reason.SUSPENDED, outcome.message)
    return _end(reporter, ExitCode.OK, Reason.SUCCEEDED, outcome.message)


def _end(reporter: Reporter | None, code: int, reason: str, message: str, owner: int | None = None) -> int:
    """Tell everyone how the run ended."""
    progress = None
    if reporter is not None:
        reporter.phase("finished" if code == ExitCode.OK else "stopping", message=shortened(one_line(message), MESSAGE_CHARACTERS))
        reporter.close()
        progress = reporter.progress
    write_termination(reason, message, progress, owner=owner)
    if code in (ExitCode.OK, ExitCode.SUSPENDED):
        log.info(message)
    return code


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended that no error ended."""

    suspended: bool
    message: str


def _vanish(reporter: Reporter | None, saved: bool, why: str) -> None:
    """End a process that cannot end by itself: Ray holds its main thread."""
    code, reason = (ExitCode.SUSPENDED, Reason.SUSPENDED) if saved else (ExitCode.TERMINATED, Reason.HEAD_LOST)
    log.warning("ended from the side: %s", why)
    write_termination(reason, f"asked to end (SIGTERM): {why}", reporter.progress if reporter is not None else None)
    os._exit(code)


def drive(run: RunConfig, arguments: argparse.Namespace, reporter: Reporter, departure: Departure) -> Outcome:
    """Run until finished or suspended. With everything in this process, nothing ends it from the side."""
    paths, attempt, in_process = ResolvedPaths.of(run), int(arguments.attempt), bool(arguments.in_process)
    stop = departure.asked
    departure.listen(watch=not in_process)
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
