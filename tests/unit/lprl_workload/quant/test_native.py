"""Everything works without a compiler, and says so once."""

import logging
import tempfile
from pathlib import Path

import pytest

from lprl_workload.quant import prebuilt
from lprl_workload.quant.native import kernels, load_library


def test_kernels_can_be_switched_off(monkeypatch) -> None:
    monkeypatch.setenv("LPRL_NATIVE", "0")
    assert kernels() is None


@pytest.mark.parametrize(
    ("compiler", "source", "message"),
    [
        pytest.param("", "int f() { return 1; }", "no C++ compiler found", id="no-compiler"),
        pytest.param("/nonexistent/c++", "int f() { return 1; }", "kernels not usable", id="missing-compiler"),
        pytest.param("c++", "not C++", "kernels not usable", id="compile-error"),
    ],
)
def test_without_a_build_there_is_a_warning_and_no_library(compiler, source, message, tmp_path: Path, monkeypatch, caplog) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("CXX", compiler)
    if not compiler:
        monkeypatch.setenv("PATH", str(tmp_path))
    path = tmp_path / "k.cpp"
    path.write_text(source)
    with caplog.at_level(logging.WARNING):
        assert load_library(path) is None
    assert message in caplog.text
    assert not list((tmp_path / "cache").rglob("*.so"))


def test_a_build_is_made_once_in_a_private_folder(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "k.cpp"
    path.write_text('extern "C" int answer() { return 42; }')
    library = load_library(path)
    assert library is not None
    assert library.answer() == 42
    (built,) = (tmp_path / "cache").rglob("*.so")
    assert built.parent.stat().st_mode & 0o077 == 0


def test_a_folder_others_can_write_is_not_trusted(tmp_path: Path, monkeypatch) -> None:
    folder = tmp_path / "cache" / "lprl" / "kernels"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "k.cpp"
    path.write_text('extern "C" int answer() { return 7; }')
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    library = load_library(path)
    assert library is not None and library.answer() == 7
    assert not list(folder.iterdir())
    assert not list(tmp_path.glob("lprl-kernels-*")), "the temporary folder is gone with the need for it"


def test_a_prebuilt_library_needs_no_compiler(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "k.cpp"
    path.write_text('extern "C" int answer() { return 41; }')
    made = prebuilt.build(path, tmp_path / "ready")
    assert made and all(p.is_file() for p in made)
    monkeypatch.setenv(prebuilt.ENV_FOLDER, str(tmp_path / "ready"))
    monkeypatch.setenv("CXX", "/nonexistent/c++")
    library = load_library(path)
    assert library is not None
    assert library.answer() == 41


def test_the_best_level_the_processor_offers_is_taken_and_never_one_of_other_code(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "k.cpp"
    path.write_text("int f() { return 1; }")
    monkeypatch.setenv(prebuilt.ENV_FOLDER, str(tmp_path))
    monkeypatch.setattr(prebuilt.platform, "machine", lambda: "x86_64")
    for _, level, _ in prebuilt.LEVELS:
        (tmp_path / prebuilt.name(path, level)).touch()
    for features, level in ((prebuilt.LEVELS[0][2], "x86-64-v4"), (prebuilt.LEVELS[1][2], "x86-64-v3"), (frozenset(), "x86-64")):
        monkeypatch.setattr(prebuilt, "_features", lambda features=features: features)
        assert prebuilt.find(path) == tmp_path / prebuilt.name(path, level)
    path.write_text("int f() { return 2; }")
    assert prebuilt.find(path) is None
