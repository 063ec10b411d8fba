"""What a user names by import path, and what their code raised: as one line with file and line of theirs."""

import importlib
import traceback
from pathlib import Path
from typing import Any

from lprl_api.errors import UserError

IMPORTABLE = "the module must be installed in the image or on PYTHONPATH"
LONGEST = 300
"""Characters of an exception's message that are told."""
OURS = frozenset({__file__, str(Path(__file__).with_name("reward_python.py"))})
"""Frames that are no user's."""


def imported(where: str, module: str, name: str) -> Any:
    """Return `name` of `module`. Raises UserError starting with `where`, with file and line where the module itself is at fault."""
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        inner = error.name is not None and error.name != module and not module.startswith(f"{error.name}.")
        what = f", which {module} imports{raised_at(error, None)}" if inner else ""
        raise UserError(f"{where}: {error}{what}", IMPORTABLE) from error
    except (Exception, SystemExit) as error:  # a user's module may raise anything
        raise UserError(f"{where}: importing {module} raised {said(error)}{raised_at(error, None)}", "correct the module") from error
    if not hasattr(found, name):
        raise UserError(f"{where}: module {module} ({getattr(found, '__file__', 'no file')}) has no {name!r}", IMPORTABLE)
    return getattr(found, name)


def said(error: BaseException) -> str:
    """Return type and message of an exception, the last line of what Python would print, shortened."""
    lines = [line.strip() for line in traceback.format_exception_only(error) if line.strip()]
    text = " ".join(" ".join(lines[-1:]).split())
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def raised_at(error: BaseException, file: str | None) -> str:
    """Return ` (FILE line N)` of where it was raised: the last line of `file`, the user's own; of what was imported, the first one."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" ({error.filename} line {error.lineno})"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<frozen")]
    frames = [frame for frame in frames if frame.filename not in OURS and frame.filename != importlib.__file__]
    own = frames[:1] if file is None else [frame for frame in frames if frame.filename == file] or frames
    return f" ({own[-1].filename} line {own[-1].lineno})" if own else ""
