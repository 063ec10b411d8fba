"""A task that needs a tool: what a keyed secret says about a key of three letters, which only the tool's process knows.

    user       kqz
    assistant  <tool_call>{"name": "lookup", "arguments": {"key": "kqz"}}</tool_call>
    tool       see xbe                                            (half of the keys; else two digits)
    assistant  <tool_call>{"name": "lookup", "arguments": {"key": "xbe"}}</tool_call>
    tool       47
    assistant  47

Values are new for every secret, so nothing about them can be learnt but how to ask: without the tool the best a model can do is one
right answer in a hundred, on keys it was not trained on. Keys that begin with x hold values; no question asks for one.
"""

import hashlib
import json
import random
import secrets
import string
from pathlib import Path

SECRET = "secret.txt"
KEY_LETTERS = 3
SEE = "see "
DESCRIPTION = "Look a key up: two digits, or another key to see."


def held(secret: str, key: str) -> str:
    """Return what is held for a key: `see KEY`, or two digits."""
    digest = hashlib.sha256(f"{secret}:{key}".encode()).digest()
    if key[:1] != "x" and digest[0] % 2:
        return f"{SEE}x{_letters(digest[1:KEY_LETTERS])}"
    return f"{int.from_bytes(digest[4:8], 'big') % 100:02d}"


def value(secret: str, key: str) -> str:
    """Return the two digits that a key leads to."""
    found = held(secret, key)
    return value(secret, found.removeprefix(SEE)) if found.startswith(SEE) else found


def _letters(numbers: bytes) -> str:
    return "".join(string.ascii_lowercase[number % 26] for number in numbers)


def questions(count: int, seed: int) -> list[str]:
    """Return `count` different keys; equal arguments give equal keys."""
    rng = random.Random(f"lookup:{seed}")
    found: dict[str, None] = {}
    while len(found) < count:
        found[rng.choice(string.ascii_lowercase.replace("x", "")) + "".join(rng.choices(string.ascii_lowercase, k=KEY_LETTERS - 1))] = None
    return list(found)


def write_lookup(folder: Path, seed: int = 0, train: int = 4096, heldout: int = 256, secret: str | None = None) -> None:
    """Write secret.txt, train.jsonl and heldout.jsonl (disjoint keys) into `folder`; the secret is a new one unless given."""
    folder.mkdir(parents=True, exist_ok=True)
    secret = secret or secrets.token_hex(16)
    (folder / SECRET).write_text(secret + "\n")
    keys = questions(train + heldout, seed)
    for name, part in (("train.jsonl", keys[heldout:]), ("heldout.jsonl", keys[:heldout])):
        rows = ({"prompt": [{"role": "user", "content": key}], "label": value(secret, key)} for key in part)
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def read_secret(folder: Path) -> str:
    """Return the secret of a task folder."""
    return (folder / SECRET).read_text().strip()
