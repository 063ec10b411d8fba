"""Volumes that are really full (a small tmpfs): the end says which, nothing is lost, and with more room the same command goes on."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.local.test_convert_kill import finished_shards, tree, write_source

from lprl_api.names import ExitCode
from lprl_fixtures.runs import merged

MIB = 1 << 20
Volume = Callable[[str, int], Callable[[int], None]]


@pytest.fixture
def volume() -> Iterator[Volume]:
    """Mount a file system of so many bytes; returns what changes its size."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system takes root")
    mounted: list[str] = []

    def mount(path: str, size: int) -> Callable[[int], None]:
        Path(path).mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path], check=True)
        mounted.append(path)
        return lambda size: subprocess.run(["mount", "-o", f"remount,size={size}", path], check=True) and None

    yield mount
    for path in mounted:
        subprocess.run(["umount", path], check=True)


def convert(source: Path, target: Path) -> "subprocess.CompletedProcess[str]":
    line = [
        sys.executable,
        "-m",
        "lprl_workload",
        "convert-all",
        str(source),
        str(target),
        "--to",
        "fp8",
        "--workers",
        "2",
        "--threads",
        "1",
    ]
    return subprocess.run(line, capture_output=True, text=True, timeout=1200, check=False)


def test_a_conversion_says_what_is_missing_and_goes_on_with_room(tmp_path: Path, volume: Volume) -> None:
    write_source(tmp_path / "source")
    assert convert(tmp_path / "source", tmp_path / "whole").returncode == ExitCode.OK
    size = sum(len(content) for content in tree(tmp_path / "whole").values())
    enlarge = volume(str(tmp_path / "small"), size // 2)
    target = tmp_path / "small" / "target"

    refused = convert(tmp_path / "source", target)
    assert refused.returncode == ExitCode.STORAGE_FULL and "Traceback" not in refused.stderr
    assert "free" in refused.stderr, "said before anything is written"
    assert not finished_shards(target)

    enlarge(size + 64 * MIB)
    assert convert(tmp_path / "source", target).returncode == ExitCode.OK
    assert tree(target) == tree(tmp_path / "whole")


def test_a_run_whose_checkpoints_fill_their_volume(driver: Any, train_root: Path, volume: Volume) -> None:
    changes = {
        "algorithm": {"steps": 8},
        "checkpoint": {"directory": {"volume": "tiny", "path": "runs/full"}, "every_steps": 1, "keep": 8},
        "progress": {"interval_seconds": 0.2},
    }
    roomy = merged(changes, {"checkpoint": {"directory": {"volume": "all", "path": "runs/roomy"}}})
    whole = driver(None, train_root, "roomy", changes=roomy).wait()
    size = sum(p.stat().st_size for p in whole.folder.rglob("*") if p.is_file())
    enlarge = volume(str(train_root / "tiny"), size // 3)

    first = driver(None, train_root, "full", changes=changes)
    first.folder = train_root / "tiny" / "runs" / "full"
    first.wait(ExitCode.STORAGE_FULL)
    ended = json.loads(first.term.read_text())
    assert ended["reason"] == "StorageFull" and "Traceback" not in first.log.read_text()
    kept = sorted(p.name for p in first.folder.glob("step-??????") if (p / "manifest.json").exists())
    assert 0 < len(kept) < 8, "checkpoints from before are there"

    enlarge(2 * size + 64 * MIB)
    second = driver(None, train_root, "full", 2, changes)
    second.folder = first.folder
    assert second.wait().outcome() == whole.outcome()
