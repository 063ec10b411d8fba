"""What an unexpected error is owed to: chance, which another attempt may escape, or program and input, which it meets again.

Only errors of the second kind are compared by the operator: the same one twice at the same step ends the job, so that nobody
watches 32 nodes load a model four times to learn of the same missing attribute.
"""

import re
import traceback
from pathlib import Path
from typing import Literal

from lprl_api.text import last_words, one_line
from lprl_workload.process.errors import NonFiniteError, RemoteError

Blame = Literal["chance", "program", "memory"]
PROGRAM = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NameError,
    NonFiniteError,
    NotImplementedError,
    RecursionError,
    SyntaxError,
    SystemExit,
    TypeError,
    ValueError,
)
"""Errors of code and data. A step that ended in a number that is none does so again: resume is exact."""
CODE = (AttributeError, ImportError, NameError, NotImplementedError, SyntaxError, TypeError)
"""Those that no half-read file explains: another attempt, on other nodes, meets them too."""
_CODE_ELSEWHERE = re.compile(rf"(?:^|: )(?:ModuleNotFoundError|UnboundLocalError|{'|'.join(e.__name__ for e in CODE)})(?::|$)")
LIBRARIES = ("builtins.Exception", "jinja2.", "safetensors", "tokenizers.")
"""Plain exceptions (tokenizers raises them) and those of libraries that only read what they are given."""
LINKS = ("nccl", "gloo", "connection", "socket", "timed out", "timeout", "cuda error", "cublas", "cudnn", "ecc", "peer")
"""Words of a RuntimeError of torch that tell of links and devices, which do fail by chance."""
WRONG_DEVICE = ("no kernel image is available", "invalid device ordinal")
"""What a device error says that no other node of the kind mends."""
FULL_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


def blame_of(error: BaseException) -> Blame:
    """Return what `error` is owed to; what nobody knows is chance."""
    if isinstance(error, RemoteError):
        return error.blame
    text = str(error).lower()
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "memory"
    kind = f"{type(error).__module__}.{type(error).__qualname__}"
    if isinstance(error, PROGRAM) or kind == LIBRARIES[0] or kind.startswith(LIBRARIES[1:]):
        return "program"
    if type(error) is RuntimeError:  # torch raises it for everything; its subclasses are of links and devices
        if any(words in text for words in FULL_MEMORY):
            return "memory"
        by_chance = any(word in text for word in LINKS) and not any(words in text for words in WRONG_DEVICE)
        return "chance" if by_chance else "program"
    return "chance"


def is_of_code(error: BaseException) -> bool:
    """Return whether an error is one that the same code makes of the same input on any node, also one of another process."""
    if isinstance(error, RemoteError):
        return error.blame == "program" and _CODE_ELSEWHERE.search(str(error)) is not None
    return isinstance(error, CODE)


def words_of(error: BaseException) -> str:
    """Return type, message and place of an error as one line."""
    if isinstance(error, RemoteError):
        return one_line(str(error))
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames and blame_of(error) == "program" else ""
    said = last_words(str(error))
    return f"{type(error).__name__}: {said}{place}" if said else f"{type(error).__name__}{place}"
