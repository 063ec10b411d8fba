"""results.json, steps.csv, results.md and the bars of the runs that compare the engines."""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import fmean, median
from typing import Any

from benchmarks.backends.cases import DIGIT, ENGINES, TOOL, EngineCase
from benchmarks.modes import tables
from benchmarks.training import Result, document

HELDOUT_BAR = 0.8
RATIO, ROUNDING = 2.0, 1e-7
"""K3 of SGLang may be this many times that of the torch engine, and is rounding below: of float32, and of an FP8 code now and then."""
COLUMNS = ("reward", "k3", "logprob_diff", "tis_clip_fraction", "step_seconds")
"""Of steps.csv, besides run and step."""
MODELS = {"qwen3": "dense", "qwen3-moe": "MoE"}
TASKS = ("digit", "tool")
Run = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Shown:
    """A finished run."""

    case: EngineCase
    run: Run
    """Its figures."""
    steps: tuple[dict[str, float], ...]
    """Of each step its number and COLUMNS, as steps.csv has them."""


def shown(case: EngineCase, result: Result) -> Shown:
    """Return a run that is finished here."""
    return Shown(case, figures(case, result), tuple({name: row[name] for name in ("step", *COLUMNS)} for row in result.steps))


def published(every: Sequence[EngineCase], folder: Path) -> list[Shown]:
    """Return the runs that results.json and steps.csv in `folder` hold, without those whose manifest is another now."""
    if not (folder / "results.json").is_file():
        return []
    runs = {run["run"]: run for run in json.loads((folder / "results.json").read_text())["runs"]}
    steps: dict[str, list[dict[str, float]]] = {}
    with (folder / "steps.csv").open() as lines:
        for row in csv.DictReader(lines):
            name = row.pop("run")
            steps.setdefault(name, []).append({key: int(value) if key == "step" else float(value) for key, value in row.items()})
    same = [case for case in every if case.name in runs and runs[case.name].get("key", case.key) == case.key]
    return [Shown(case, runs[case.name], tuple(steps[case.name])) for case in same]


def machine() -> dict[str, Any]:
    """Return what the figures were measured on."""
    known = {name: value for name, value in tables.machine().items() if name != "runs_at_a_time"}
    return known | {"ray": version("ray"), "sglang": version("sglang")}


def figures(case: EngineCase, result: Result) -> Run:
    """Return a run's figures."""
    steps = result.steps
    more = {
        "k3_largest": max(row["k3"] for row in steps),
        "clipped": fmean(row["tis_clip_fraction"] for row in steps),
        "step_seconds": median(row["step_seconds"] for row in steps),
        "sync_seconds": median(row["sync_seconds"] for row in steps),
        "oldest": max(row["staleness_max"] for row in steps),
    }
    named = {"run": case.name, "key": case.key, "task": case.task, "engine": case.engine, "staleness": case.staleness}
    return named | document(result) | more


def bars(runs: Sequence[Run]) -> list[tuple[bool, str]]:
    """Return every bar as (passed, what was found): each run learns, and SGLang's K3 is as low as the torch engine's."""
    found = [(r["heldout_last"] > HELDOUT_BAR, f"{r['run']}: held-out reward {r['heldout_last']:.3f}, needs > {HELDOUT_BAR}") for r in runs]
    for torch, sglang in _twins(runs):
        if torch is not None and sglang is not None:
            limit = max(RATIO * torch["k3_mean"], ROUNDING)
            found.append((sglang["k3_mean"] <= limit, f"{sglang['run']}: mean K3 {sglang['k3_mean']:.1e}, needs at most {limit:.1e}"))
    return found


def _twins(runs: Sequence[Run]) -> list[tuple[Run | None, ...]]:
    """Return what each engine made of the same run, in the order in which they come."""
    found: dict[tuple[Any, ...], dict[str, Run]] = {}
    for run in runs:
        found.setdefault((run["task"], run["architecture"], run["mode"], run["staleness"]), {})[run["engine"]] = run
    return [tuple(by.get(engine) for engine in ENGINES) for by in found.values()]


def write(found: Sequence[Shown], missing: Sequence[str], folder: Path) -> list[Run]:
    """Write results.json, steps.csv and results.md into `folder`; they name the runs that are missing. Returns the figures."""
    runs = [one.run for one in found]
    judged = [{"passed": passed, "what": text} for passed, text in bars(runs)]
    content = {"machine": machine(), "bars": judged, "missing": list(missing), "runs": runs}
    (folder / "results.json").write_text(json.dumps(content, indent=2) + "\n")
    with (folder / "steps.csv").open("w") as lines:
        lines.write(",".join(("run", "step", *COLUMNS)) + "\n")
        for one in found:
            lines.writelines(f"{one.case.name},{row['step']},{','.join(f'{row[n]:.4g}' for n in COLUMNS)}\n" for row in one.steps)
    (folder / "results.md").write_text(markdown(folder))
    return runs


HEAD = """# Both engines side by side

Made by `make engines`: `lprl run` of one manifest with `backends.rollout: torch` and with `sglang`, all else equal: torch trainer, a real Ray, an
unmodified SGLang {sglang} behind our [CPU plugin](../../serving-sglang.md#on-a-cpu). {cpu}, {cores} cores, no GPU; torch {torch}, transformers {transformers}, ray {ray}; one thread a process.
Rewards and mismatches mean something; seconds depend on what else the machine did, and say nothing about GPUs. Every figure is in
[results.json](results.json), every step in [steps.csv](steps.csv).

![reward](curves.svg)
![mismatch](mismatch.svg)

## Learning
| task | model | training / rollout | staleness | steps | held-out, before -> after: torch | sglang | reward, last 10 steps: torch | sglang |
|---|---|---|---|---|---|---|---|---|
"""  # noqa: E501
MIDDLE = """
digit: find the digit in six characters ([examples](../../../examples/10-qwen3-bf16-bf16.yaml), {digit}); tool: ask a process beside the run
([example](../../../examples/40-lookup-tool.yaml), {tool}). Held-out: greedy, 256 prompts that are not trained on. Both begin with the same weights
and prompts; SGLang draws other samples, since its requests have no seeds.

## Mismatch and time
| task | model | training / rollout | staleness | mean K3: torch | sglang | largest K3 of a step: torch | sglang | mean logprob diff: torch | sglang | clipped: torch | sglang | seconds a step: torch | sglang |
|---|---|---|---|---|---|---|---|---|---|---|---|---|---|
"""  # noqa: E501
FOOT = """
K3 and logprob diff: of the engine that drew a token against the trainer, mean over tokens, then over steps. With staleness 1 they hold
one step of the policy's own movement besides.
Clipped: share of tokens whose correction (`tis`) was truncated. Seconds a step: median, with drawing, training and pushing.
"""


def markdown(folder: Path) -> str:
    """Return results.md of what results.json in `folder` says."""
    content = json.loads((folder / "results.json").read_text())
    twins = _twins(content["runs"])
    learning, apart = "".join(map(_learning, twins)), "".join(map(_mismatch, twins))
    told = {task: f"{own['rolloutBatchSize'] * own['samplesPerPrompt']} samples a step" for task, own in (("digit", DIGIT), ("tool", TOOL))}
    gaps = f"\n**Not finished: {', '.join(content['missing'])}.**\n" if content["missing"] else ""
    return HEAD.format(**content["machine"]) + learning + gaps + MIDDLE.format(**told) + apart + FOOT


def _both(twins: tuple[Run | None, ...], name: str, form: str) -> list[str]:
    return [format(run[name], form) if run is not None else "" for run in twins]


def _names(twins: tuple[Run | None, ...]) -> list[str]:
    run = next(run for run in twins if run is not None)
    return [run["task"], MODELS[run["architecture"]], run["mode"], str(run["staleness"])]


def _learning(twins: tuple[Run | None, ...]) -> str:
    steps = next(str(run["steps"]) for run in twins if run is not None)
    held = [f"{run['heldout_first']:.2f} -> {run['heldout_last']:.2f}" if run is not None else "" for run in twins]
    return _line([*_names(twins), steps, *held, *_both(twins, "reward_last", ".3f")])


def _mismatch(twins: tuple[Run | None, ...]) -> str:
    columns = (("k3_mean", ".1e"), ("k3_largest", ".1e"), ("logprob_diff_mean", ".1e"), ("clipped", ".2%"), ("step_seconds", ".1f"))
    return _line([*_names(twins), *(cell for name, form in columns for cell in _both(twins, name, form))])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |\n"
