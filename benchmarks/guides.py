"""Tables of docs/precision-guide.md and docs/tuning-stability.md, made of the result files that `make modes` and `make real` write.

    <!-- table: NAME -->      in a page; the table below it is what TABLES[NAME] returns

`python -m benchmarks.guides` rewrites them (both benchmarks do so at their end); a test compares.
"""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.real import guard

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("docs/precision-guide.md", "docs/tuning-stability.md")
SMALL, REAL = ROOT / "docs" / "precision", ROOT / "docs" / "precision" / "real"
MARK = re.compile(r"(<!-- table: ([a-z-]+) -->\n)((?:\|.*\n)+)")
MODELS = {"qwen3": "dense", "qwen3-moe": "MoE"}
Run = dict[str, Any]


def lines(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    return "".join(f"| {' | '.join(row)} |\n" for row in (names, *rows)).replace("|\n", f"|\n|{'---|' * len(names)}\n", 1)


def span(values: Sequence[float], form: str) -> str:
    """Return the lowest and the highest of `values`."""
    low, high = f"{min(values):{form}}", f"{max(values):{form}}"
    return low if low == high else f"{low} to {high}"


def _runs(folder: Path) -> list[Run]:
    runs: list[Run] = json.loads((folder / "results.json").read_text())["runs"]
    return runs


def _grouped(runs: Sequence[Run]) -> dict[tuple[str, str], list[Run]]:
    found: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        found.setdefault((run["architecture"], run["mode"]), []).append(run)
    return found


def small_pairs() -> str:
    """Learning and mismatch of every pair on the small models; means over seeds, the worst seed's held-out reward."""
    names = ("model", "training / rollout", "seeds", "reward, first step -> last 10", "held-out, greedy")
    more = ("mean K3", "mean logprob diff", "quantisation error")
    rows = [
        (
            MODELS[model],
            mode,
            str(len(runs)),
            f"{fmean(r['reward_first'] for r in runs):.3f} -> {fmean(r['reward_last'] for r in runs):.3f}",
            f"{min(r['heldout_last'] for r in runs):.3f}{' (worst)' if len(runs) > 1 else ''}",
            f"{fmean(r['k3_mean'] for r in runs):.1e}",
            f"{fmean(r['logprob_diff_mean'] for r in runs):.1e}",
            f"{fmean(r['quantization_error'] for r in runs):.4f}",
        )
        for (model, mode), runs in _grouped(_runs(SMALL)).items()
    ]
    return lines((*names, *more), rows)


def _served() -> list[Run]:
    rows: list[Run] = json.loads((REAL / "served.json").read_text())["rows"]
    return rows


WEIGHTS = {"block": "blocks", "channel": "by channel", "tensor": "by tensor"}


def _pair(row: Run) -> tuple[str, str, str]:
    """Return (pair, grid of the weights, activations in the engine)."""
    precision = row["precision"]
    pair = f"{precision['training']}/{precision['rollout']}"
    if "int4" in precision:
        return pair, f"groups of {precision['int4']['groupSize']}", "BF16"
    if "fp8" in precision:
        rounded = precision["fp8"]["activations"] == "dynamic"
        return pair, WEIGHTS[precision["fp8"]["strategy"]], "FP8 (W8A8)" if rounded else "BF16 (weight-only)"
    return pair, "own widths" if "own" in row["engine"] else "", "BF16"


def engine_pairs() -> str:
    """Every pair against the real engine."""
    names = ("training / rollout", "weights served", "activations in the engine", "K3", "mean logprob diff", "sample size of whole answers")
    rows = [
        (*_pair(row), f"{row['k3']:#.2g}", f"{row['logprob_diff']:.3f}", f"{row['effective_sample_size_sequences']:.2f}")
        for row in _served()
    ]
    return lines(names, rows)


def trained_pairs() -> str:
    """Every pair trained on the real model: rewards and K3 of all seeds."""
    rows = []
    for (_, mode), runs in _grouped(_runs(REAL)).items():
        after = ", ".join(f"{run['heldout_last']:.2f}" for run in runs)
        before = span([run["heldout_first"] for run in runs], ".2f")
        differences = span([run["logprob_diff_mean"] for run in runs], ".1e")
        rows.append((mode, f"{before} -> {after}", span([run["k3_mean"] for run in runs], ".1e"), differences))
    return lines(("training / rollout", "held-out reward, before -> after", "mean K3", "mean logprob diff"), rows)


def normal() -> str:
    """K3 of every pair: the small models, the real one trained, the real one before training on a real engine."""
    small: dict[str, list[float]] = {}
    for (_, mode), runs in _grouped(_runs(SMALL)).items():
        small.setdefault(mode, []).extend(run["k3_mean"] for run in runs)
    real: dict[str, list[float]] = {}
    for (_, mode), runs in _grouped(_runs(REAL)).items():
        real.setdefault(mode.split(" g")[0], []).extend(run["k3_mean"] for run in runs)
    engine: dict[str, list[float]] = {}
    for row in _served():
        pair, _, activations = _pair(row)
        engine.setdefault(f"{pair}{' weight-only' if 'weight-only' in activations else ''}", []).append(row["k3"])
    order = list(dict.fromkeys([*real, *engine, *small]))
    rows = [(mode, *(span(column[mode], ".0e") if mode in column else "" for column in (small, real, engine))) for mode in order]
    names = ("training / rollout", "small random models, CPU", "real model trained, torch engine", "real model untrained, SGLang")
    return lines(names, rows)


def guarded() -> str:
    """The guard's limits over the recorded runs: all seeds of a pair in a line."""
    found: dict[str, list[guard.Replay]] = {}
    for run in guard.recorded(REAL / "steps.csv", "k3"):
        found.setdefault(run[0], []).append(guard.replay(*run))
    rows = []
    for pair, replays in found.items():
        spans = [span([getattr(r, name) for r in replays], ".0e") for name in ("mean", "p99", "largest", "limit")]
        alarms = sorted({"none" if r.alarm is None else f"step {r.alarm}" for r in replays})
        rows.append((pair, str(len(replays)), *spans, span([float(r.over) for r in replays], ".0f"), ", ".join(alarms)))
    return lines(("training / rollout", "seeds", "mean K3", "p99", "max", "limit", "steps over it of 100", "alarm"), rows)


TABLES: dict[str, Callable[[], str]] = {
    "small-pairs": small_pairs,
    "engine-pairs": engine_pairs,
    "trained-pairs": trained_pairs,
    "normal": normal,
    "guard": guarded,
}


def rendered(text: str) -> str:
    """Return a page with every marked table made anew."""
    return MARK.sub(lambda found: found[1] + TABLES[found[2]](), text)


def refresh() -> list[str]:
    """Rewrite the pages; returns those that changed."""
    changed = []
    for name in PAGES:
        path = ROOT / name
        before = path.read_text()
        after = rendered(before)
        if after != before:
            path.write_text(after)
            changed.append(name)
    return changed


if __name__ == "__main__":
    for page in refresh():
        print(page)
