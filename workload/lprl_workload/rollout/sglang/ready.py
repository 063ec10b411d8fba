"""How far a starting server is, from its log, and whether it still gets on. Pure: whoever waits reads logs and clocks.

A server compiles for minutes and says nothing, so no time is given by which it must be there. What is bounded is how long nothing
moves: no line of its log, and no work of its processes. Work without a word is believed for a while only: a spinning one works, too.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

STILL_S = 300.0
"""Nothing moved for so long: it hangs."""
WORDLESS_S = 3600.0
"""It worked, but said nothing for so long: it hangs as well."""
BUSY = 0.2
"""Processors it must keep busy to count as moving."""
PHASES: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("warming up", re.compile(r"Uvicorn running|Application startup complete")),
    ("capturing graphs", re.compile(r"Capture (?:cuda|CPU|prefill|decode)?\s*graph|Capturing batches|capture_bs", re.IGNORECASE)),
    ("compiling", re.compile(r"\b(?:JIT|nvcc|ninja|[Cc]ompil(?:e|ing)|autotun\w*|DeepGEMM warmup)\b")),
    ("allocating the KV cache", re.compile(r"KV Cache is allocated|Memory pool end", re.IGNORECASE)),
    ("loading weights", re.compile(r"Load weight begin|Loading safetensors|Multi-thread loading shards|Load weight end")),
    ("joining ranks", re.compile(r"Init torch distributed")),
)
"""What a line says of where it is."""
UP = re.compile(r"The server is fired up and ready to roll")


@dataclass(slots=True)
class Startup:
    """A server on its way."""

    began: float
    phase: str = "importing"
    detail: str = ""
    """The line that says what it is at."""
    up: bool = False
    """Whether it says itself that it serves."""
    _moved: float = field(init=False)
    _said: float = field(init=False)
    _work: float = 0.0
    _looked: float = field(init=False)

    def __post_init__(self) -> None:
        self._moved = self._said = self._looked = self.began

    def hear(self, lines: Iterable[str], now: float) -> bool:
        """Take new lines of the log; returns whether it is at something else now."""
        before = self.phase
        for line in lines:
            self._moved = self._said = now
            self.up = self.up or UP.search(line) is not None
            phase = next((name for name, pattern in PHASES if pattern.search(line)), None)
            if phase is not None:
                self.phase, self.detail = phase, line.strip()
        return self.phase != before

    def worked(self, cpu_s: float, now: float) -> bool:
        """Take the processor seconds its processes have used so far; returns whether it moved since the last look."""
        since = now - self._looked
        moved = since > 0 and (cpu_s - self._work) / since >= BUSY
        self._work, self._looked = cpu_s, now
        if moved:
            self._moved = now
        return moved

    def late(self, now: float) -> str:
        """Return why it is given up, in words; empty while it moves."""
        if now - self._moved >= STILL_S:
            return f"nothing moved for {STILL_S:.0f} s while {self.phase}"
        if now - self._said >= WORDLESS_S:
            return f"it worked for {WORDLESS_S:.0f} s without a word while {self.phase}"
        return ""
