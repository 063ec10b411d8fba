"""The runs that compare the rollout engines: legal jobs that differ in nothing else, and the page that is made of them."""

import json
from pathlib import Path
from typing import Any

import pytest
from benchmarks.backends import run as publishing
from benchmarks.backends import tables
from benchmarks.backends.cases import EngineCase, cases
from benchmarks.training import JOB, Figures, Result, steps_of

from lprl_api.model.hf_config import shape_from_config
from lprl_api.rules.check import check
from lprl_api.rules.parse import parse_job
from lprl_fixtures.architectures import model_config

EVERY = cases()


@pytest.mark.parametrize("case", EVERY, ids=lambda case: case.name)
def test_a_case_is_a_job_that_its_engine_serves(case: EngineCase) -> None:
    spec = parse_job(case.manifest()).spec
    shape = shape_from_config(model_config(case.architecture, "blocks", 48, 0, 1))
    assert check(spec, shape) == []
    assert (spec.precision.label, spec.backends.rollout, spec.algorithm.max_staleness) == (case.pair, case.engine, case.staleness)


def test_every_run_is_made_by_both_engines_and_differs_in_nothing_else() -> None:
    made: dict[str, set[str]] = {}
    for case in EVERY:
        manifest = case.manifest()
        made.setdefault(json.dumps([manifest["spec"] | {"backends": None}, case.architecture], sort_keys=True), set()).add(case.engine)
        assert manifest["metadata"]["name"] == case.name
    assert set(map(frozenset, made.values())) == {frozenset({"torch", "sglang"})}
    assert len({case.name for case in EVERY}) == len(EVERY) == 2 * len(made)


def test_the_steps_of_a_run_are_read_from_its_manifest(tmp_path: Path) -> None:
    (tmp_path / JOB).write_text("spec: {algorithm: {steps: 7}}\n")
    assert steps_of(tmp_path) == 7


def run(case: EngineCase, heldout: float, k3: float) -> tuple[EngineCase, Result]:
    row: dict[str, Any] = {"reward": 0.9, "k3": k3, "logprob_diff": 0.1, "tis_clip_fraction": 0.0, "step_seconds": 2.0}
    row |= {"sync_seconds": 0.1, "staleness_max": 0}
    figures = Figures(case.architecture, case.mode, 0, 2, 0.1, 0.9, 0.05, heldout, k3, 0.1, 0.0, 100.0, 60.0)
    return case, Result(
        figures, tuple(row | {"step": step} for step in (1, 2)), ({"step": 0, "reward": 0.05}, {"step": 2, "reward": heldout})
    )


TORCH, SGLANG = EngineCase("fp8/fp8", "qwen3", "torch"), EngineCase("fp8/fp8", "qwen3", "sglang")


@pytest.mark.parametrize(
    ("heldout", "k3", "missed"),
    [(0.9, 1.9e-5, 0), (0.9, 2.1e-5, 1), (0.79, 1.9e-5, 1)],
    ids=["as good", "a larger mismatch", "not learnt"],
)
def test_an_engine_that_is_worse_misses_a_bar(heldout: float, k3: float, missed: int) -> None:
    runs = [tables.figures(*one) for one in (run(TORCH, 1.0, 1e-5), run(SGLANG, heldout, k3))]
    told = [text for passed, text in tables.bars(runs) if not passed]
    assert len(told) == missed and all(SGLANG.name in text for text in told)


def test_the_page_shows_both_engines_in_a_line_and_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "version", lambda _: "1.2.3")  # SGLang is in another environment
    moe = EngineCase("bf16/bf16", "qwen3-moe", "sglang", 1)
    found = [tables.shown(*one) for one in (run(TORCH, 1.0, 1e-5), run(SGLANG, 0.9, 2e-5), run(moe, 0.9, 1e-6))]
    tables.write(found, ["one"], tmp_path)
    page = (tmp_path / "results.md").read_text()
    assert page == tables.markdown(tmp_path)
    assert "| digit | dense | fp8/fp8 | 0 | 2 | 0.05 -> 1.00 | 0.05 -> 0.90 | 0.900 | 0.900 |" in page
    assert "| digit | MoE | bf16/bf16 | 1 |  | 1.0e-06 |" in page and "**Not finished: one.**" in page
    assert (tmp_path / "steps.csv").read_text().splitlines()[1] == f"{TORCH.name},1,0.9,1e-05,0.1,0,2"


def test_runs_that_are_published_stay_when_others_are_added_and_are_no_longer_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "version", lambda _: "1.2.3")
    (tmp_path / "docs").mkdir()
    tables.write([tables.shown(*run(TORCH, 1.0, 1e-5)), tables.shown(*run(SGLANG, 0.7, 2e-5))], [], tmp_path / "docs")
    here = {SGLANG.name: run(SGLANG, 0.9, 1e-5)}  # made again
    monkeypatch.setattr(publishing, "is_done", lambda case, _: case.name in here)
    monkeypatch.setattr(publishing, "result_of", lambda case, _: here[case.name][1])
    bars = publishing.publish(EVERY, tmp_path / "out", tmp_path / "docs")
    content = json.loads((tmp_path / "docs" / "results.json").read_text())
    assert [(one["run"], one["heldout_last"]) for one in content["runs"]] == [(TORCH.name, 1.0), (SGLANG.name, 0.9)]
    assert len(content["missing"]) == len(EVERY) - 2 == sum(not passed for passed, _ in bars)
    assert len((tmp_path / "docs" / "steps.csv").read_text().splitlines()) == 5
    assert (tmp_path / "docs" / "curves.svg").is_file()
    content["runs"][0]["key"] = "that of another manifest"
    (tmp_path / "docs" / "results.json").write_text(json.dumps(content))
    assert [one.case for one in tables.published(EVERY, tmp_path / "docs")] == [SGLANG]
