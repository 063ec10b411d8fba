"""What `make real` writes of its runs: files that make each other, and a guide that follows them."""

import json
from pathlib import Path

import pytest
from benchmarks import guides
from benchmarks.real import guard, tables
from benchmarks.training import Figures, Result


def result(mode: str, seed: int, k3: float, steps: int = 6) -> Result:
    rows = tuple(
        {"step": i, "reward": i / 10, "k3": k3 * i, "logprob_diff": 0.1, "entropy": 1.0, "quantization_error": 0.1}
        for i in range(1, steps + 1)
    )
    figures = Figures("smollm2", mode, seed, steps, 0.1, 0.6, 0.05, 0.9, k3 * 3.5, 0.1, 0.1127, 100.0, 60.0)
    return Result(figures, rows, ({"step": 0, "reward": 0.05}, {"step": steps, "reward": 0.9}))


def test_the_written_page_can_be_made_again_of_the_written_files(tmp_path: Path) -> None:
    tables.write([result("bf16/int4 g64", 0, 0.9), result("bf16/bf16", 0, 1e-4)], ["one"], tmp_path, "add1")
    assert {path.name for path in tmp_path.iterdir()} == {"results.json", "steps.csv", "results.md", "curves.svg", "mismatch.svg"}
    page = (tmp_path / "results.md").read_text()
    assert page == tables.markdown(tmp_path)
    assert [run["mode"] for run in json.loads((tmp_path / "results.json").read_text())["runs"]] == ["bf16/bf16", "bf16/int4 g64"]
    assert (
        "**Not finished: one.**" in page and "| bf16/int4 g64 | 0 | 3.1e+00 | 5.4e+00 | 5.4e+00 | 2.7e+00 | 5.0e-01 | 6 | step 3 |" in page
    )


def test_runs_too_short_for_a_baseline_have_no_table_of_the_guard(tmp_path: Path) -> None:
    tables.write([result("bf16/bf16", 0, 1e-4, steps=2)], [], tmp_path, "add1")
    assert "## The guard" not in (tmp_path / "results.md").read_text()
    assert next(guard.recorded(tmp_path / "steps.csv", "k3")) == ("bf16/bf16", 0, [1e-4, 2e-4])


def test_a_guide_whose_results_changed_gets_other_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (guides.ROOT / guides.PAGES[1]).read_text()
    monkeypatch.setitem(guides.TABLES, "guard", lambda: "| new |\n|---|\n")
    changed = guides.rendered(text)
    assert "<!-- table: guard -->\n| new |\n|---|\n\n- No healthy run" in changed and guides.rendered(changed) == changed
