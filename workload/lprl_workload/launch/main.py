"""`python -m lprl_workload train`: the driver of one attempt, from RunConfig to exit code.

What a run is made of comes in when its configuration has been read and its first progress said: torch takes seconds.
"""

import argparse
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from lprl_api.errors import UserError
from lprl_api.names import ENV_ATTEMPT, ENV_RECORDED_STEP, ExitCode, Reason
from lprl_api.text import one_line, shortened
from lprl_api.wire.progress import MESSAGE_CHARACTERS
from lprl_workload.config import load_run_config, of_this_attempt
from lprl_workload.launch.departure import Departure
from lprl_workload.metrics.progress import Reporter, make_reporter
from lprl_workload.process.arguments import Parser, called_as, count
from lprl_workload.process.errors import TerminatedError
from lprl_workload.process.loading import loading
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
    told = f"step of the checkpoint that an earlier attempt reported; default ${ENV_RECORDED_STEP}, else none"
    parser.add_argument("--recorded-step", type=count, help=told)
    parser.add_argument("--in-process", action="store_true", help="everything in this process, without Ray")
    arguments = parser.parse_args(argv)
    if arguments.attempt is None:
        arguments.attempt = _of_environment(ENV_ATTEMPT, "--attempt", "1")
    if arguments.recorded_step is None:
        arguments.recorded_step = _of_environment(ENV_RECORDED_STEP, "--recorded-step", None)
    return arguments


def _of_environment(variable: str, argument: str, default: str | None) -> int:
    """Return a number that pods are told; 0 where there is none and none is needed."""
    text = os.environ.get(variable) or default
    if text is None or (default is None and text == "0"):
        return 0
    try:
        return count(text)
    except argparse.ArgumentTypeError as error:
        raise UserError(f"{variable}: {error}", f"unset {variable}, or pass {argument}") from error


def train_command(argv: Sequence[str]) -> int:
    """Run one attempt; returns an ExitCode. No traceback for wrong input."""
    arguments = parse(argv)
    set_up_logs()
    reporter: Reporter | None = None
    departure = Departure(lambda saved, why: _vanish(reporter, saved, why))
    try:
        run = of_this_attempt(load_run_config(arguments.config))
        departure.listen(watch=not arguments.in_process)  # with everything in this process, nothing ends it from the side
        reporter = make_reporter(run, arguments.attempt)
        with loading(keep=True):
            from lprl_workload.launch.drive import drive
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


def _vanish(reporter: Reporter | None, saved: bool, why: str) -> None:
    """End a process that cannot end by itself: Ray holds its main thread."""
    code, reason = (ExitCode.SUSPENDED, Reason.SUSPENDED) if saved else (ExitCode.TERMINATED, Reason.HEAD_LOST)
    log.warning("ended from the side: %s", why)
    write_termination(reason, f"asked to end (SIGTERM): {why}", reporter.progress if reporter is not None else None)
    os._exit(code)
