"""Our converter against the plain one (plain.py), in one run: throughput and peak memory at one and at two workers.

    python benchmarks/convert/run.py [--model FOLDER] [--work FOLDER] [--repeats 3] [--ours processes] [--formats fp8-block int4-group]

Both convert the same model (made by generate.py, more than 2 GB) on the same volume with one compute thread per worker, and flush
every file to disk. A worker is a thread of the plain converter's pool and a process of ours (`--ours threads`: a thread as well).
Runs alternate; the source is in the page cache and dirty pages are written out before each. Seconds: the slowest worker's
conversion, without interpreter start-up (`wall` in the JSON has that too). Memory: peak over time of RssAnon + RssShmem, summed
over the processes, polled every 5 ms from /proc/PID/status. The bar is a ratio of at least 3 in throughput and at most 1/3 in
memory, of the medians. Ours also hashes source and result and measures every weight's error meanwhile; the plain one does not.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from generate import generate

HERE = Path(__file__).parent
POLL_S = 0.005
MIN_SPEEDUP, MAX_MEMORY = 3.0, 1 / 3


@dataclass(frozen=True)
class Run:
    """One measured conversion."""

    seconds: float
    cpu_seconds: float
    wall: float
    peak_bytes: int


def memory(pid: int) -> int:
    """Return RssAnon + RssShmem of a process in bytes, 0 when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("RssAnon:", "RssShmem:")))


def measure(commands: list[list[str]]) -> Run:
    """Run commands side by side to their end. Raises when one fails."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    started = time.perf_counter()
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for command in commands]
    peak = 0
    while any(process.poll() is None for process in processes):
        peak = max(peak, sum(memory(process.pid) for process in processes))
        time.sleep(POLL_S)
    wall = time.perf_counter() - started
    outputs = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        raise RuntimeError(f"failed: {commands}")
    results = [json.loads(output.splitlines()[-1]) for output in outputs]
    return Run(max(r["seconds"] for r in results), sum(r["cpu_seconds"] for r in results), wall, peak)


def commands(tool: str, source: Path, target: Path, fmt: str, workers: int) -> list[list[str]]:
    """Return the processes of one conversion."""
    base = [sys.executable, str(HERE / f"{'plain' if tool == 'plain' else 'ours'}.py"), str(source), str(target), fmt, "--workers"]
    match tool:
        case "plain":
            return [[*base, str(workers)]]
        case "threads":
            return [[*base, "1", "--threads", str(workers)]]
        case _:
            return [[*base, str(workers), "--worker", str(i)] for i in range(workers)]


def compare(source: Path, work: Path, fmt: str, workers: int, repeats: int, kind: str) -> dict[str, list[Run]]:
    """Return the runs of both tools, alternating; `kind` of our workers: processes or threads."""
    runs: dict[str, list[Run]] = {"plain": [], "ours": []}
    for _ in range(repeats):
        for tool, done in runs.items():
            target = work / tool
            shutil.rmtree(target, ignore_errors=True)
            for shard in source.glob("*.safetensors"):
                with shard.open("rb") as file:
                    while file.read(1 << 24):
                        pass
            os.sync()
            done.append(measure(commands(kind if tool == "ours" else tool, source, target, fmt, workers)))
    return runs


def row(fmt: str, workers: int, nbytes: int, runs: dict[str, list[Run]]) -> dict[str, object]:
    """Return one line of the table: medians and ratios."""

    def median(tool: str, field: str) -> float:
        return statistics.median(getattr(run, field) for run in runs[tool])

    speedup = median("plain", "seconds") / median("ours", "seconds")
    share = median("ours", "peak_bytes") / median("plain", "peak_bytes")
    return {
        "format": fmt,
        "workers": workers,
        "plain_gb_s": nbytes / 1e9 / median("plain", "seconds"),
        "ours_gb_s": nbytes / 1e9 / median("ours", "seconds"),
        "speedup": speedup,
        "cpu_ratio": median("plain", "cpu_seconds") / median("ours", "cpu_seconds"),
        "wall_ratio": median("plain", "wall") / median("ours", "wall"),
        "plain_peak_mb": median("plain", "peak_bytes") / 1e6,
        "ours_peak_mb": median("ours", "peak_bytes") / 1e6,
        "memory_share": share,
        "bar_met": speedup >= MIN_SPEEDUP and share <= MAX_MEMORY,
        "runs": {tool: [asdict(run) for run in done] for tool, done in runs.items()},
    }


def main() -> int:
    """Measure, print the table, write JSON; exit 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("bench-out/convert"))
    parser.add_argument("--model", type=Path, help="default: generated in the work folder")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--ours", choices=["processes", "threads"], default="processes", help="what a worker of ours is")
    parser.add_argument("--formats", nargs="+", default=["fp8-block", "int4-group"])
    args = parser.parse_args()
    source = args.model or args.work / "model"
    if not (source / "config.json").exists():
        print(f"generating {source}: {generate(source, layers=4, experts=64) / 1e9:.2f} GB")
    nbytes = sum(path.stat().st_size for path in source.glob("*.safetensors"))
    print(f"{nbytes / 1e9:.2f} GB, medians of {args.repeats}, load average before: {os.getloadavg()[0]:.2f}")
    heads = [("workers", 7), ("plain GB/s", 10), ("ours GB/s", 10), ("speed-up", 9), ("CPU", 6)]
    heads += [("plain MB", 9), ("ours MB", 8), ("share", 6)]
    print(f"{'format':11}", *(f"{head:>{width}}" for head, width in heads))
    rows = []
    for fmt in args.formats:
        for workers in args.workers:
            line = row(fmt, workers, nbytes, compare(source, args.work, fmt, workers, args.repeats, args.ours))
            rows.append(line)
            print(
                f"{fmt:11} {workers:7} {line['plain_gb_s']:10.2f} {line['ours_gb_s']:10.2f} {line['speedup']:8.2f}x "
                f"{line['cpu_ratio']:5.2f}x {line['plain_peak_mb']:9.0f} {line['ours_peak_mb']:8.0f} {line['memory_share']:6.2f}"
                f"{'' if line['bar_met'] else '  bar missed'}",
                flush=True,
            )
    args.work.mkdir(parents=True, exist_ok=True)
    (args.work / "result.json").write_text(json.dumps(rows, indent=1))
    for tool in ("plain", "ours"):
        shutil.rmtree(args.work / tool, ignore_errors=True)
    return 0 if all(line["bar_met"] for line in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
