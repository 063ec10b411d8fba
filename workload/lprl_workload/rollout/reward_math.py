"""Judging mathematical answers: text where that decides, else math-verify in killable processes."""

import json
import os
import queue
import select
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from lprl_workload.process.movement import here
from lprl_workload.rollout.answer_forms import choice, said_choice
from lprl_workload.rollout.answers import canonical, for_algebra, same_answer, text_for_algebra
from lprl_workload.rollout.reward_text import last_boxed

MAX_RESPONSE_CHARACTERS = 20_000
"""Longer responses are judged by their tail: the answer stands at the end."""
MAX_WORKERS = 4
START_S = 60.0
"""Allowance for a new worker's imports, on top of the time limit."""


class _Worker:
    """One math_worker process."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "lprl_workload.rollout.math_worker"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8")
        self._fresh = True

    def judge(self, response: str, label: str, limit_s: float) -> bool | None:
        """Return the verdict; None when none came in time or the process died."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        seconds = max(1, int(limit_s / 3))  # three limited stages: parse the label, parse the response, compare
        try:
            stdin.write(json.dumps([response, label, seconds]) + "\n")
            stdin.flush()
        except OSError:
            return None
        ready, _, _ = select.select([stdout], [], [], limit_s + (START_S if self._fresh else 0.0))
        line = stdout.readline() if ready else ""
        self._fresh = False
        return bool(json.loads(line)) if line else None

    def close(self) -> None:
        """Kill the process and wait for its end."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            with suppress(OSError):  # an unsent line cannot be flushed into a dead process
                if stream is not None:
                    stream.close()


class MathJudge:
    """Judges (response, label) pairs, in parallel, each within `limit_s` seconds; processes start when first needed."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._size = max(1, min(MAX_WORKERS, os.cpu_count() or 1))
        self._idle: queue.SimpleQueue[_Worker | None] = queue.SimpleQueue()
        for _ in range(self._size):
            self._idle.put(None)

    def judge(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """Return one verdict per pair; an answer that takes longer than the limit is wrong."""
        pairs = [(response[-MAX_RESPONSE_CHARACTERS:], last_boxed(label) or label) for response, label in pairs]
        verdicts = [_by_text(response, label) for response, label in pairs]
        hard = [place for place, verdict in enumerate(verdicts) if verdict is None]
        here.finished(len(pairs) - len(hard))
        if hard:
            with ThreadPoolExecutor(self._size) as pool:
                for place, verdict in zip(hard, pool.map(lambda place: self._ask(*pairs[place]), hard), strict=True):
                    verdicts[place] = verdict
                    here.finished()
        return [bool(verdict) for verdict in verdicts]

    def _ask(self, response: str, label: str) -> bool:
        worker = self._idle.get() or _Worker()
        verdict: bool | None = None
        try:
            verdict = worker.judge(_readable(response), for_algebra(label.replace("$", "")), self._limit_s)
        finally:
            if verdict is None:
                worker.close()
            self._idle.put(None if verdict is None else worker)
        return bool(verdict)

    def close(self) -> None:
        """End the processes; a later `judge` starts new ones."""
        workers = [self._idle.get() for _ in range(self._size)]
        for worker in workers:
            if worker is not None:
                worker.close()
            self._idle.put(None)


def _readable(response: str) -> str:
    """Return what math-verify reads: the response as it was written, unless its answer is a number that it would misread."""
    boxed = last_boxed(response)
    if boxed is None:
        return text_for_algebra(response)
    written = for_algebra(boxed)
    return response if written == boxed else f"\\boxed{{{written}}}"


def _by_text(response: str, label: str) -> bool | None:
    """Return the verdict where no algebra is needed: an empty response, or a boxed answer that is text or a number."""
    if not response.strip():
        return False
    boxed = last_boxed(response)
    if boxed is not None:
        return same_answer(boxed, label)
    letter = choice(canonical(label))
    said = said_choice(response) if letter else None
    return None if said is None else said == letter
