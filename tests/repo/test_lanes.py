"""What `make test` runs, and how it ends."""

from pathlib import Path

import pytest
from tests import conftest, side_by_side

FOLDERS = [side_by_side.ROOT / "tests" / name for name in side_by_side.FOLDERS]
FILES = [file for folder in FOLDERS for file in folder.rglob("test_*.py")]


def test_every_test_file_is_run_once_and_with_its_lane() -> None:
    dealt = side_by_side.shares(FILES)
    assert sorted(file for files in dealt.values() for file in files) == sorted(FILES)
    for file in FILES:
        lane = conftest.lane(file)
        assert lane is None or file in dealt[lane]
    assert {"plane-1", "plane-2", "plane-3", "ray-1", "ray-3", "api-server", "chart"} < dealt.keys()
    assert list(dealt)[-1] == conftest.lane(side_by_side.ROOT / "tests/chart/test_upgrade.py") == "chart-2", (
        "it takes the place of one that ended"
    )
    assert not {conftest.lane(file) for file in dealt["others"] + dealt["workload"] + dealt["contract"]} - {None}


def test_a_lane_that_fails_is_told_last_and_ends_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = faults\n")
    for folder, body in (("unit", "assert False, 'said last'"), ("chart", "pass")):
        (tmp_path / "tests" / folder).mkdir(parents=True)
        (tmp_path / "tests" / folder / "test_one.py").write_text(f"def test_one(tmp_path): {body}\n")
    for module in (conftest, side_by_side):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setenv("PYTEST_DEBUG_TEMPROOT", str(tmp_path))
    assert side_by_side.main(1) == 1
    said = capfd.readouterr().out
    assert said.index("== chart: ended") < said.index("== others FAILED:") < said.index("said last") < said.index("failed: others")
    assert "1 passed" in said
    kept = [path.name for path in tmp_path.glob("lprl-tests-*/*")]
    assert "others" in kept and "chart" not in kept, "what a failing lane leaves behind is kept"
