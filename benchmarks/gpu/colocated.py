"""GPU memory of a colocated run, the torch trainer and SGLang in turns on one GPU, beside what the plan of its manifest says.

Needs SGLang, a GPU and nvidia-smi. In-process launcher, random weights, a few steps of the digit task whose micro-batches are as long as
the manifest allows. What each process holds is looked at ten times a second. OUT/colocated.json holds the largest sums with the engine
asleep (training, sync before it wakes) and awake (rollout), and the plan's. Exit code 1 when the run fails.
"""

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.gpu.learn import ROOT, Learning
from benchmarks.gpu.shapes import SHAPES
from benchmarks.training import Running, say

from lprl_api.rules.parse import parse_job
from lprl_fixtures.shape import model_shape
from lprl_operator.plan.plan import make_plan

QUERY = ("nvidia-smi", "--query-compute-apps=timestamp,pid,used_memory", "--format=csv,noheader,nounits", "-lms", "100")
MIB = 1 << 20
PROMPT_TOKENS = 16


@dataclass(frozen=True, slots=True)
class Colocated(Learning):
    """A run whose memory is planned."""

    micro_batch: int = 4096

    def manifest(self) -> dict[str, Any]:
        """Return the manifest of a learning run, with micro-batches that a step fills."""
        found = Learning.manifest(self)
        found["spec"]["data"]["maxPromptTokens"] = PROMPT_TOKENS
        found["spec"]["topology"]["trainer"]["maxTokensPerGpu"] = self.micro_batch
        return found


@dataclass
class Watch:
    """What this process's descendants, a run, hold on the GPU, from `with` to its end."""

    looks: dict[str, dict[bool, int]] = field(default_factory=dict)
    """Time -> whether SGLang's -> bytes."""
    _kinds: dict[int, bool | None] = field(default_factory=dict)

    def __enter__(self) -> "Watch":
        self._smi = subprocess.Popen(QUERY, stdout=subprocess.PIPE, text=True)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._smi.terminate()
        self._smi.wait()
        self._thread.join()

    def _read(self) -> None:
        assert self._smi.stdout is not None
        for line in self._smi.stdout:
            when, pid, used = (part.strip() for part in line.split(","))
            kind = self._kind(int(pid))
            if kind is not None and used.isdigit():
                held = self.looks.setdefault(when, {False: 0, True: 0})
                held[kind] += int(used) * MIB

    def _kind(self, pid: int) -> bool | None:
        """Return whether a process is SGLang's; None where it is none of the run's."""
        if pid not in self._kinds:
            try:
                named, above = Path(f"/proc/{pid}/cmdline").read_bytes(), pid
                while above not in (0, 1, os.getpid()):
                    above = int(Path(f"/proc/{above}/stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                return None
            self._kinds[pid] = b"sglang" in named if above == os.getpid() else None
        return self._kinds[pid]

    def peaks(self) -> dict[str, int]:
        """Return the largest sums with the engine asleep and awake, and the largest of either side."""
        looks = list(self.looks.values())
        most = max((held[True] for held in looks), default=0)
        slept = [sum(held.values()) for held in looks if held[True] < most / 2]
        awake = [sum(held.values()) for held in looks if held[True] >= most / 2]
        return {
            "asleep": max(slept, default=0),
            "awake": max(awake, default=0),
            "trainer": max((held[False] for held in looks), default=0),
            "engine": most,
        }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pair", default="bf16/bf16", help="of learn.py")
    parser.add_argument("--size", choices=("medium", "small"), default="medium")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--memory-fraction", type=float, default=0.6)
    parser.add_argument("--micro-batch", type=int, default=4096, help="tokens of a micro-batch")
    parser.add_argument("--out", type=Path, default=ROOT / "bench-out" / "colocated")
    return parser.parse_args()


def main() -> int:
    args = arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    case = Colocated(args.pair, "sglang", args.size, True, args.steps, 1e-5, args.memory_fraction, micro_batch=args.micro_batch)
    shape = model_shape(SHAPES[case.architecture] | {"eos_token_id": 1, "pad_token_id": 0})
    (group,) = make_plan(parse_job(case.manifest()).spec, shape).gpus
    planned = {phase.name: {item.cause: item.bytes for item in phase.items} for phase in group.phases}
    with Watch() as watch:
        running = Running(case, args.out / case.name)
        while (code := running.poll()) is None:
            time.sleep(0.5)
    peaks = watch.peaks()
    found = {"planned": planned, "planned_peak": group.peak.total_bytes, "measured": peaks}
    (args.out / "colocated.json").write_text(json.dumps(found, indent=1))
    (args.out / "looks.json").write_text(json.dumps({when: [held[False], held[True]] for when, held in watch.looks.items()}))
    totals = {name: f"{sum(items.values()) / 1e9:.1f} GB" for name, items in planned.items()}
    say(f"exit {code}; planned {totals}; measured {dict((name, f'{size / 1e9:.1f} GB') for name, size in peaks.items())}")
    if code:
        sys.stderr.write(running.tail() + "\n")
    return int(code != 0)


if __name__ == "__main__":
    sys.exit(main())
