"""What command lines have in common: how a wrong one ends, how the program is called, and numbers that are checked."""

import argparse
import math
import os
from typing import NoReturn

from lprl_api import names
from lprl_api.errors import UserError

PROG = "python -m lprl_workload"


class UsageError(UserError):
    """The command line is wrong (exit code 2; 3 in the pods of a job, whose failure policy knows that one)."""


class Parser(argparse.ArgumentParser):
    """Reports a wrong command line as an error like any other, not by ending the process."""

    def error(self, message: str) -> NoReturn:
        """Raise UsageError."""
        raise UsageError(f"{self.prog}: {message}", f"see {self.prog} --help")


def called_as(command: str) -> str:
    """Return how the user calls a command."""
    return os.environ.get(names.ENV_CALLED_AS) or f"{PROG} {command}"


def parser(command: str, description: str, examples: str) -> Parser:
    """Return the parser of a subcommand, its examples as they are typed."""
    prog, own = called_as(command), f"{PROG} {command}"
    epilog = (
        f"examples:\n{examples.replace(own, prog)}\n\n"
        "exit codes: 0 done, 2 wrong command line, 3 wrong input (one line says what, one what to do), 5 volume full, 1 crash (retry)"
    )
    return Parser(prog=prog, description=description, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter)


def positive_number(text: str) -> float:
    """Parse a finite number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise argparse.ArgumentTypeError(f"got {text!r}; needs a number above 0")
    return number


def count(text: str) -> int:
    """Parse a whole number of at least 1."""
    number = int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}; needs a whole number of at least 1")
    return number
