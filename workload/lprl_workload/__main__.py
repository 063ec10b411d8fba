"""`python -m lprl_workload COMMAND`: one process of a job. Each command imports only what it needs."""

import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from lprl_api.names import ExitCode, Reason
from lprl_workload.process.arguments import UsageError
from lprl_workload.process.loading import loading
from lprl_workload.process.termination import run_guarded


@dataclass(frozen=True, slots=True)
class Command:
    """A subcommand: where its function (remaining arguments -> exit code) lives, and what an unexpected end is called."""

    target: str
    summary: str
    crash_reason: str
    by_hand: bool = False
    """Never run by a pod: a file that is missing is the user's to name, not a retry's to find."""


_CONVERT = "lprl_workload.convert.cli"
COMMANDS = {
    "inspect": Command(
        "lprl_workload.launch.inspection:inspect_command",
        "read a model's config and headers; print shape and fingerprint",
        Reason.INSPECTION_FAILED,
    ),
    "convert": Command(f"{_CONVERT}:convert_command", "convert one worker's shards (an index of an Indexed Job)", Reason.CONVERSION_FAILED),
    "finalise": Command(
        "lprl_workload.compare.phase:finalise_command", "check all shards and publish the conversion", Reason.CONVERSION_FAILED
    ),
    "convert-all": Command(
        f"{_CONVERT}:convert_all_command", "inspect, convert and publish on this machine", Reason.CONVERSION_FAILED, True
    ),
    "verify": Command(
        "lprl_workload.compare.cli:verify_command",
        "check a converted folder: its error per tensor, and what became of the model's answers",
        Reason.CONVERSION_FAILED,
        True,
    ),
    "export": Command(
        "lprl_workload.launch.export:export_command",
        "training checkpoint -> Hugging Face folders in BF16, FP8, INT4",
        Reason.CONVERSION_FAILED,
        True,
    ),
    "train": Command("lprl_workload.launch.main:train_command", "drive one attempt of a job", Reason.DRIVER_CRASHED),
    "doctor": Command(
        "lprl_workload.launch.doctor:doctor_command", "say what this machine and environment have", Reason.DRIVER_CRASHED, True
    ),
}
HELP = ("-h", "--help", "help")


def usage() -> str:
    """Return what there is to run."""
    rows = "\n".join(f"  {name:<12} {command.summary}" for name, command in COMMANDS.items())
    codes = (
        "exit codes: 0 done, 1 crash, 2 wrong command line, 3 wrong input, 4 suspended, 5 volume full, 6 fenced off,\n"
        "7 trainer lost, 143 asked to end, 8 error of program or input, 9 too many failed episodes (train)"
    )
    head = "usage: python -m lprl_workload COMMAND [options]\n\nThe processes of a LowPrecisionRLJob, one command each:\n"
    return f"{head}{rows}\n\n`python -m lprl_workload COMMAND --help` explains one and shows examples.\n{codes}"


def main(argv: Sequence[str]) -> int:
    """Run one command; returns its exit code."""
    if argv and argv[0] in HELP:
        print(usage())
        return ExitCode.OK
    if not argv or argv[0] not in COMMANDS:
        print(f"{usage()}\n", file=sys.stderr)
        return run_guarded(lambda: _unknown(argv), Reason.USER_ERROR)
    command = COMMANDS[argv[0]]

    def run() -> int:
        module, _, function = command.target.partition(":")
        with loading(keep=True):
            entry: Callable[[Sequence[str]], int] = getattr(importlib.import_module(module), function)
        return entry(argv[1:])

    return run_guarded(run, command.crash_reason, by_hand=command.by_hand)


def _unknown(argv: Sequence[str]) -> NoReturn:
    raise UsageError(f"unknown command {argv[0]!r}" if argv else "no command given", f"it is one of {', '.join(COMMANDS)}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
