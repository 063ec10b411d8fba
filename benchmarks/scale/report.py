"""results.json and results.md of the scale benchmark, and which bars were missed."""

import json
import os
from pathlib import Path
from typing import Any

Result = dict[str, Any]
UNMEASURED = "not measured"
RATIO_BAR, MEMORY_GOAL_MIB, SILENT_BAR = 1.2, 300.0, 0.05


def ratio(result: Result) -> float | None:
    """Provisioning to Running of all jobs over the time the bare clusters took (the mean of those runs); None without any."""
    bare = [b["ready_s"] for b in result["bare"]]
    return float(result["lane"]["provisioning_to_running_s"] / (sum(bare) / len(bare))) if bare else None


def missed(results: list[Result]) -> list[str]:
    """Bars that do not hold, in words."""
    found = []
    for result in results:
        count = result["jobs"]
        times = ratio(result)
        if times is not None and times > RATIO_BAR:
            found.append(f"{count} jobs: {times:.2f} times the bare clusters, at most {RATIO_BAR} wanted")
        if result["lane"]["memory_peak_mib"] > MEMORY_GOAL_MIB:
            found.append(f"{count} jobs: {result['lane']['memory_peak_mib']:.0f} MiB of memory, at most {MEMORY_GOAL_MIB:.0f} wanted")
        if result["silent"]["core"] > SILENT_BAR:
            found.append(f"{count} silent jobs: {result['silent']['core']:.1%} of a core, at most {SILENT_BAR:.0%} wanted")
        if result["lane"]["clusters"] != count:
            found.append(f"{count} jobs: {result['lane']['clusters']} RayClusters")
    return found


def write(results: list[Result], folder: Path) -> None:
    """Write both files."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    (folder / "results.md").write_text(markdown(results))


def markdown(results: list[Result]) -> str:
    """One column a number of jobs."""
    heads = ["", *(str(r["jobs"]) for r in results)]
    lines = [f"Jobs at once on one simulated control plane, {os.cpu_count()} cores for everything. Seconds are wall clock.", ""]
    lines += [_row(heads), _row(["---"] * len(heads))]
    rows: list[tuple[str, Any]] = [
        ("bare RayClusters, created to ready, s", lambda r: " and ".join(f"{b['ready_s']:.1f}" for b in r["bare"]) or UNMEASURED),
        ("jobs, Provisioning to Running, s", lambda r: f"{r['lane']['provisioning_to_running_s']:.1f}"),
        ("**ratio** (at most 1.2)", lambda r: UNMEASURED if ratio(r) is None else f"**{ratio(r):.2f}**"),
        ("one job, Provisioning to Running, median / slowest, s", lambda r: _pair(r["lane"], "one_job_median_s", "one_job_max_s")),
        ("all applied to all waiting for the conversion, s", lambda r: f"{r['lane']['to_converting_s']:.1f}"),
        ("in all, first applied to last Running, s", lambda r: f"{r['lane']['total_s']:.1f}"),
        ("operator memory, at the end / peak, MiB", lambda r: _pair(r["lane"], "memory_mib", "memory_peak_mib")),
        ("operator CPU per job until Running, ms", lambda r: f"{_cpu(r, 'operator') / r['jobs'] * 1000:.0f}"),
        ("operator API calls per job until Running", lambda r: f"{r['lane']['api_calls_per_job']:.1f}"),
        ("operator CPU, all running and silent, % of a core", lambda r: f"{r['silent']['core']:.1%}"),
        ("operator CPU, each reporting every 15 s, % of a core", lambda r: f"{r['reporting']['core']:.1%}"),
        (
            "operator API calls per job and minute, silent / reporting",
            lambda r: f"{_calls(r, 'silent'):.2f} / {_calls(r, 'reporting'):.2f}",
        ),
        ("API server CPU, silent / reporting, % of a core", lambda r: f"{_server(r, 'silent'):.1%} / {_server(r, 'reporting'):.1%}"),
        ("deleting all, s", lambda r: f"{r['delete_s']:.1f}" if "delete_s" in r else UNMEASURED),
        ("CPU of others on the machine while jobs started, s", lambda r: f"{r['lane']['cpu_to_running']['others']:.0f}"),
        ("failed reconciles", lambda r: ", ".join(f"{k.split('kind=')[-1]}: {v:.0f}" for k, v in r["errors"].items()) or "none"),
    ]
    lines += [_row([title, *(value(r) for r in results)]) for title, value in rows]
    lines += ["", "API calls of the operator per job, until all run:", ""]
    verbs = sorted({k for r in results for k in r["lane"]["api_calls"]})
    lines += [_row(heads), _row(["---"] * len(heads))]
    lines += [_row([v, *(f"{r['lane']['api_calls'].get(v, 0.0) / r['jobs']:.2f}" for r in results)]) for v in verbs]
    parts = sorted({p for r in results for p in r["lane"]["cpu_to_running"] if p != "wall"})
    lines += ["", "CPU seconds by process: bare lane / jobs until all wait / jobs until all run:", ""]
    lines += [_row(heads), _row(["---"] * len(heads))]
    lines += [_row([p, *(_cpus(r, p) for r in results)]) for p in parts]
    return "\n".join(lines) + "\n"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _pair(found: Result, first: str, second: str) -> str:
    return f"{found[first]:.1f} / {found[second]:.1f}"


def _cpu(result: Result, part: str) -> float:
    lane = result["lane"]
    return float(lane["cpu_to_converting"].get(part, 0.0) + lane["cpu_to_running"].get(part, 0.0))


def _calls(result: Result, rest: str) -> float:
    """Requests of the operator per job and minute while all jobs run on."""
    found = result[rest]
    return float(sum(found["api_calls"].values()) / result["jobs"] / found["cpu"]["wall"] * 60)


def _server(result: Result, rest: str) -> float:
    """What the API server used meanwhile, as a part of a core."""
    cpu = result[rest]["cpu"]
    return float(cpu["kube-apiserver"] / cpu["wall"])


def _cpus(result: Result, part: str) -> str:
    lane = result["lane"]
    bare = result["bare"][0]["cpu"] if result["bare"] else {}
    return " / ".join(f"{f.get(part, 0.0):.1f}" for f in (bare, lane["cpu_to_converting"], lane["cpu_to_running"]))
