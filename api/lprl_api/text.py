"""Messages for one line of a table, a condition or a termination message: nothing that decides is cut off."""

import re

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
_FRAME = re.compile(r'^\s+File "', re.MULTILINE)


def one_line(text: str) -> str:
    """Return a text as one line that is valid UTF-8: lines joined by a space, control characters gone, lone surrogates spelt out."""
    lines = (" ".join(_CONTROLS.sub(" ", line).split()) for line in text.splitlines())
    return " ".join(line for line in lines if line).encode("utf-8", "backslashreplace").decode()


def last_words(text: str) -> str:
    """Return what a traceback ends with (type and message of its last error) as one line; any other text as it is, in one line."""
    frames = list(_FRAME.finditer(text))
    if not frames:
        return one_line(text)
    after = text[frames[-1].start() :].splitlines()[1:]
    said = [number for number, line in enumerate(after) if line.strip() and not line.startswith("  ")]
    return one_line("\n".join(after[said[0] :])) if said else one_line(text)


def shortened(text: str, limit: int) -> str:
    """Return a text of at most `limit` characters: what is too much is taken out of its middle.

    A message begins with the field or file and ends with the cause and what to do; both stay.
    """
    if len(text) <= limit:
        return text
    mark = " ... "
    if limit <= 2 * len(mark):
        return text[len(text) - limit :]
    head = (limit - len(mark)) // 3
    return text[:head] + mark + text[len(text) - (limit - len(mark) - head) :]
