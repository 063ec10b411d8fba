"""Why a server died or never came up, from the last lines of its log. Pure.

A scheduler's traceback comes before what its parents say of its death, so the line that tells is rarely the last one: known causes are
looked for first, then the last error of a traceback, then the last line.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lprl_api.errors import UserError
from lprl_api.text import one_line, shortened
from lprl_workload.process.errors import RemoteError, ServerLostError

Kind = Literal["memory", "device", "weights", "unsupported", "port", "assertion", "killed", "unknown"]
SHOWN = 400
"""Characters of the server's own words in an error."""
MISSING = re.compile(r"(?:Parameter )?(\S+) not found in params_dict")
"""What a loader says of a tensor it has no place for: the weights are not all there, whatever the exit code."""
_PREFIX = re.compile(r"^\[[^\]]*\]\s*")
_ERROR = re.compile(r"^(?:[A-Za-z_][\w.]*\.)?(?:[A-Z]\w*)?(?:Error|Exception)(?:: .*)?$|^\S+\.py: error: ")
"""Last line of a traceback, or of argparse."""


@dataclass(frozen=True, slots=True)
class Cause:
    """A known reason of a server's end."""

    kind: Kind
    pattern: re.Pattern[str]
    what: str
    remedy: str = ""
    user: bool = False
    """Whether only another job or image mends it."""
    anywhere: bool = False
    """Whether a warning that says so is the reason, too; else the error of a traceback alone."""


def _of(kind: Kind, pattern: str, what: str, remedy: str = "", user: bool = False, anywhere: bool = False) -> Cause:
    return Cause(kind, re.compile(pattern, re.IGNORECASE), what, remedy, user, anywhere)


SMALLER = "lower topology.rollout.memoryFraction or maxConcurrency, or give an engine more GPUs"
RELEASES = "use a release from 0.5.17 to 0.5.23"
PAGE = "docs/serving-sglang.md lists releases, formats and widths that fit"
FULL = r"out of memory|OutOfMemoryError|not enough memory|Cannot allocate memory|Please increase --mem-fraction"
WIDTHS = r"is not divisible by|cannot be divisible by|Invalid thread config"
LACKS = r"not supported|unsupported|NotImplementedError|No module named|operator .* does not exist|libcuda"
DEVICE = r"CUDA error|CUDA driver|cublas|cudnn|NCCL error|illegal memory access|device-side assert|uncorrectable ECC|Found no NVIDIA driver"
CAUSES: tuple[Cause, ...] = (
    _of("memory", FULL, "out of memory", SMALLER),
    _of("weights", MISSING.pattern, "weights it has no place for", PAGE, user=True, anywhere=True),
    _of("unsupported", r"unrecognized arguments|invalid choice|error: argument", "arguments it does not take", RELEASES, user=True),
    _of("unsupported", WIDTHS, "widths its kernels do not take", PAGE, user=True),
    _of("port", r"address already in use|EADDRINUSE", "a port that was taken meanwhile", anywhere=True),
    _of("device", DEVICE, "a device error"),
    _of("unsupported", LACKS, "something it does not support", PAGE, user=True),
    _of("assertion", r"^AssertionError", "an assertion"),
)
"""The first that some line matches holds."""


@dataclass(frozen=True, slots=True)
class Failure:
    """How a server ended."""

    kind: Kind
    what: str
    said: str
    """The server's own line that tells; empty when its log is."""
    remedy: str = ""
    user: bool = False

    @property
    def words(self) -> str:
        """As part of a sentence: `out of memory: torch.OutOfMemoryError: CUDA out of memory. Tried ...`."""
        return f"{self.what}: {self.said}" if self.said else self.what


def explain(lines: Sequence[str], code: int | None) -> Failure:
    """Return why a server whose log ends with `lines` ended with `code` (negative: the signal; None: it is still there)."""
    told = [line for line in lines if line.strip()]
    errors = [line for line in told if _ERROR.match(_bare(line))]
    for cause in CAUSES:
        found = next((line for line in (told if cause.anywhere else errors) if cause.pattern.search(_bare(line))), None)
        if found is not None:
            said = _said(found)
            if said == "AssertionError":  # it says nothing: the line above is the source that failed
                said = f"{said} at {_said(told[told.index(found) - 1])}"
            return Failure(cause.kind, cause.what, said, cause.remedy, cause.user)
    if errors:
        return Failure("unknown", "an error", _said(errors[-1]))
    last = _said(told[-1]) if told else ""
    if code is not None and code in (-9, 137):
        return Failure("killed", "killed by signal 9 (of the machine's memory, or by somebody)", last)
    if code is not None and code < 0:
        return Failure("killed", f"ended by signal {-code}", last)
    return Failure("unknown", "no answer" if code is None else f"ended with code {code}", last)


def missing_weights(lines: Sequence[str]) -> str:
    """Return what a loader says it had no place for, in words; empty when it says nothing."""
    names = list(dict.fromkeys(found[1] for line in lines if (found := MISSING.search(line))))
    return f"{len(names)} tensors found no place in the server, such as {names[0]}" if names else ""


def start_error(failure: Failure, where: str, log: str) -> Exception:
    """Return what a start that failed raises; what memory or another job mends is not tried again and again."""
    message = f"{where} did not start: {failure.words} (log: {log})"
    if failure.user:
        return UserError(message, failure.remedy)
    if failure.kind == "memory":
        return RemoteError(f"{message}; {failure.remedy}", "memory")
    return ServerLostError(message)


def lost_error(failure: Failure, where: str, log: str) -> ServerLostError:
    """Return what is raised of a server that served and is gone."""
    return ServerLostError(f"{where} is lost: {failure.words} (log: {log})")


def _bare(line: str) -> str:
    """Return a line without its time and rank."""
    return _PREFIX.sub("", line.strip())


def _said(line: str) -> str:
    return shortened(one_line(_bare(line)), SHOWN)
