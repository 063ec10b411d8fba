"""The precision and tuning guides say what the result files say: their tables, and the figures in their prose."""

import json
import re
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from benchmarks import guides
from benchmarks.real import guard

REAL, SMALL = guides.REAL, guides.SMALL
SERVED: list[dict[str, Any]] = json.loads((REAL / "served.json").read_text())["rows"]
K3 = {(row["engine"], row["precision"]["training"]): row["k3"] for row in SERVED}
ANSWERS = {(row["engine"], row["precision"]["training"]): row["effective_sample_size_sequences"] for row in SERVED}
RUNS: list[dict[str, Any]] = json.loads((REAL / "results.json").read_text())["runs"]
TEXT = {name: (guides.ROOT / name).read_text() for name in guides.PAGES}
PRECISION, TUNING = (TEXT[name] for name in guides.PAGES)


@pytest.mark.parametrize("name", guides.PAGES)
def test_every_table_is_what_the_result_files_say(name: str) -> None:
    assert guides.rendered(TEXT[name]) == TEXT[name], "python -m benchmarks.guides"


def test_every_table_of_results_is_on_a_page() -> None:
    assert sorted(found[2] for text in TEXT.values() for found in guides.MARK.finditer(text)) == sorted(guides.TABLES)


def small(mode: str) -> list[float]:
    runs = json.loads((SMALL / "results.json").read_text())["runs"]
    return [run["k3_mean"] for run in runs if run["mode"] == mode]


def engines(training: str, rollout: str, activations: str | None = None) -> list[tuple[str, str]]:
    wanted = (training, rollout)
    rows = [row for row in SERVED if (row["precision"]["training"], row["precision"]["rollout"]) == wanted]
    return [(r["engine"], training) for r in rows if activations is None or r["precision"]["fp8"]["activations"] == activations]


def steps(column: str, *pairs: str) -> list[float]:
    return [max(values) for pair, _, values in guard.recorded(REAL / "steps.csv", column) if pair in pairs]


HEALTHY = tuple(sorted({run["mode"] for run in RUNS} - {"bf16/int4 g64"}))
W8A8 = [*engines("bf16", "fp8", "dynamic"), *engines("fp8", "fp8", "dynamic"), *engines("fp8-qat", "fp8", "dynamic")]
# What a page says, and the same words made of the result files.
SAID: list[tuple[str, Callable[[], str]]] = [
    (PRECISION, lambda: f"K3 from {K3['int4-g64', 'bf16']:#.2g} to {K3['int4-g64', 'int4-qat']:#.2g} (groups of 64)"),
    (PRECISION, lambda: f"from {K3['fp8-block-weight-only', 'bf16']:#.2g} to {K3['fp8-block-weight-only', 'fp8-qat']:#.2g}; the floor"),
    (PRECISION, lambda: f"bf16/bf16, is {K3['bf16', 'bf16']:#.2g}. What is left"),
    (PRECISION, lambda: f"activations, too: {K3['fp8-block', 'fp8-qat']:#.2g} against {K3['fp8-block', 'fp8']:#.2g}."),
    (PRECISION, lambda: f"a share of {guides.span([ANSWERS[key] for key in W8A8], '.2f')} with W8A8"),
    (PRECISION, lambda: f"{guides.span([ANSWERS[key] for key in engines('bf16', 'int4')], '.2f')} with unmatched INT4"),
    (PRECISION, lambda: f"with unmatched INT4 (bf16/bf16: {ANSWERS['bf16', 'bf16']:.2f})"),
    (PRECISION, lambda: f"(unmatched {_list(K3[f'int4-g{g}', 'bf16'] for g in (32, 64, 128))} with groups of 32, 64, 128)"),
    (PRECISION, lambda: f"matters ({guides.span([K3[key] for key in engines('int4-qat', 'int4')], '#.2g')})"),
    (PRECISION, lambda: f"bf16/fp8 has K3 {guides.span(small('bf16/fp8'), '.0e')} here and".replace("e-0", "e-")),
    (PRECISION, lambda: f"here and {guides.span([K3[key] for key in engines('bf16', 'fp8', 'dynamic')], '#.2g')} with the real model"),
    (PRECISION, lambda: f"unmatched INT4 {guides.span(small('bf16/int4'), '.0e')} and".replace("e-0", "e-")),
    (PRECISION, lambda: f"and {guides.span([K3[key] for key in engines('bf16', 'int4')], '#.2g')}."),
    (PRECISION, lambda: f"The real model's floor is {K3['bf16', 'bf16']:#.2g} where"),
    (PRECISION, lambda: f"FP8 block {_error('fp8-qat/fp8')}, INT4 group 64 {_error('int4-qat/int4 g64')}, group 32"),
    (PRECISION, lambda: f"group 32 {_error('int4-qat/int4 g32')}."),
    (TUNING, lambda: f"({max(steps('k3', *HEALTHY)):.2f} of `k3`, {max(steps('logprob_diff', *HEALTHY)):.2f} of `logprob-diff`"),
]  # fmt: skip


def _list(values: Iterable[float]) -> str:
    return ", ".join(f"{value:#.2g}" for value in values)


def _error(mode: str) -> str:
    return f"{next(run['quantization_error'] for run in RUNS if run['mode'] == mode):.4f}"


@pytest.mark.parametrize(("page", "said"), SAID, ids=[str(i) for i in range(len(SAID))])
def test_figures_in_prose_are_those_of_the_result_files(page: str, said: Callable[[], str]) -> None:
    assert said() in re.sub(r"\s+", " ", page)


def test_what_the_pages_conclude_holds() -> None:
    assert all(K3[engine, "fp8-qat"] < 0.5 * K3[engine, "bf16"] for engine in ("fp8-block", "fp8-channel")), "less than half of bf16/fp8"
    matched = [run["k3_mean"] for run in RUNS if run["mode"] == "int4-qat/int4 g64"]
    assert min(run["k3_mean"] for run in RUNS if run["mode"] == "bf16/int4 g64") > 1000 * max(matched), "thousands of times"
    assert max(small("fp8/fp8")) < 2e-8, "as the page says of the CPU engine"
    assert max(small("int4-qat/int4") + small("fp8-qat/fp8 weight-only")) < 1e-13
    tight = [pair for pair in HEALTHY if pair.startswith(("bf16/bf16", "int4-qat")) or "weight-only" in pair]
    assert 0.04 < 10 * max(steps("k3", *tight)) < 0.06, "0.05 is ten times the highest step"
    assert len({run["mode"] for run in RUNS if run["heldout_last"] - run["heldout_first"] < 0.3}) == 0, "every pair learns"
