"""Reward curves as files: an SVG always, a PNG where matplotlib is installed."""

import subprocess
import sys
from pathlib import Path

import pytest

from lprl_cli.report import picture
from lprl_cli.report.charts import Series

CURVES = [Series("one", [(1.0, 0.1), (2.0, None), (3.0, 0.5)])]
INSTALLED = subprocess.run([sys.executable, "-c", "import matplotlib"], capture_output=True, check=False).returncode == 0


def test_what_is_installed_is_drawn_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = picture.write_pictures("reward", CURVES, tmp_path)
    assert [path.name for path in written] == ["reward.svg", "reward.png"][: 1 + INSTALLED]
    assert all(path.read_bytes().startswith((b"<svg", b"\x89PNG")) for path in written)
    assert capsys.readouterr().err == ""


def test_without_matplotlib_there_is_an_svg_and_nothing_to_warn_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "matplotlib.py").write_text("raise ModuleNotFoundError(\"No module named 'matplotlib'\", name='matplotlib')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert [path.name for path in picture.write_pictures("reward", CURVES, tmp_path)] == ["reward.svg"]
    assert capsys.readouterr().err == ""


def test_one_that_fails_is_said_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "matplotlib.py").write_text("raise ImportError('libfreetype.so.6: no such file')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert [path.name for path in picture.write_pictures("reward", CURVES, tmp_path)] == ["reward.svg"]
    assert capsys.readouterr().err == "warning: no reward.png: ImportError: libfreetype.so.6: no such file\n"
