"""An older commit beside this checkout: each in a process of its own, with its own sources, asked over pipes.

A script that uses it is started again for each side, with `--side TREE`: it says `ready` and then answers each line with one of JSON.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LIMIT_S = 900.0
Found = dict[str, Any]
Side = subprocess.Popen[str]


def waited(what: str, check: Callable[[], Any], limit_s: float = LIMIT_S) -> Any:
    """Return the first answer that is not empty."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if found := check():
            return found
        time.sleep(0.1)
    raise SystemExit(f"{what}: not within {limit_s:.0f} s")


def calls(metrics: dict[str, float]) -> dict[str, float]:
    """Requests of an operator so far, by `VERB resource`, without leases; watches are not in it."""
    found: dict[str, float] = {}
    for name, value in metrics.items():
        if name.startswith("lprl_api_requests_total{"):
            labels = dict(part.split("=", 1) for part in name[name.index("{") + 1 : -1].replace('"', "").split(","))
            key = f"{labels['verb']} {labels['resource'] or 'kinds'}"
            if labels["resource"] != "leases":
                found[key] = found.get(key, 0.0) + value
    return found


def answer(act: Callable[[str], Found]) -> None:
    """Be a side: answer each line of standard input."""
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(act(line.strip())), flush=True)


@contextmanager
def two_sides(script: Path, commit: str, *options: str) -> Iterator[tuple[Side, Side]]:
    """Have a side of an older commit and one of this checkout, started one after the other: a small machine has no time for both."""
    with tempfile.TemporaryDirectory(prefix="lprl-before-") as folder:
        tree = Path(folder) / "tree"
        subprocess.run(["git", "-C", str(ROOT), "worktree", "add", "-q", "--detach", str(tree), commit], check=True)
        sides: list[Side] = []
        try:
            for where in (tree, ROOT):
                sides.append(_started(script, where, options))
                _wait_ready(sides[-1])
            yield sides[0], sides[1]
        finally:
            for side in sides:
                assert side.stdin is not None
                side.stdin.close()
                side.wait()
            subprocess.run(["git", "-C", str(ROOT), "worktree", "remove", "--force", str(tree)], check=False)


def _wait_ready(side: Side) -> None:
    assert side.stdout is not None
    if side.stdout.readline().strip() != "ready":
        raise SystemExit("a side did not start")


def ask(side: Side, line: str) -> Callable[[], Found]:
    """Have a side do something, and return what waits for its answer."""
    assert side.stdin is not None
    print(line, file=side.stdin, flush=True)

    def answered() -> Found:
        assert side.stdout is not None
        text = side.stdout.readline()
        if not text:
            raise SystemExit("a side ended")
        found: Found = json.loads(text)
        return found

    return answered


def _started(script: Path, tree: Path, options: tuple[str, ...]) -> Side:
    paths = os.pathsep.join(str(tree / name) for name in ("api", "operator"))
    kit = os.environ.get("LPRL_DEVCLUSTER", str(ROOT.parent / "shared" / "devcluster"))
    environment = {**os.environ, "PYTHONPATH": paths, "LPRL_DEVCLUSTER": kit}
    command = [sys.executable, str(script), "--side", str(tree), *options]
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
