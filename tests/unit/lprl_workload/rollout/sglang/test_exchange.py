"""The folder between an engine's process and its server: it goes with its owner, or with the next one."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from lprl_workload.rollout.sglang import exchange as exchanges
from lprl_workload.rollout.sglang.exchange import Exchange

KILLED = """
import os, signal, sys
from pathlib import Path
from lprl_workload.rollout.sglang.exchange import Exchange
made = Exchange(Path(sys.argv[1]))
made.new("bucket").write_bytes(bytes(1000))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_files_have_names_of_their_own_and_go_with_their_owner(tmp_path: Path) -> None:
    exchange = Exchange(tmp_path)
    assert list(tmp_path.iterdir()) == [], "made when it is needed"
    one, two = exchange.new("bucket"), exchange.new("reply")
    assert one.parent == two.parent and one.name != two.name and one.parent.stat().st_mode & 0o77 == 0
    exchange.close()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_owner_left_goes_when_the_next_one_comes_and_a_living_ones_stays(tmp_path: Path) -> None:
    living = Exchange(tmp_path)
    kept = living.new("bucket")
    kept.write_bytes(b"x")
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert done.returncode == -9 and len(list(tmp_path.iterdir())) == 2
    other = Exchange(tmp_path)
    other.new("reply")
    assert kept.exists() and len(list(tmp_path.iterdir())) == 2
    other.close()
    living.close()
    assert list(tmp_path.iterdir()) == []


def test_memory_that_is_full_sends_files_to_the_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory, disk = tmp_path / "memory", tmp_path / "disk"
    memory.mkdir()
    disk.mkdir()
    write = exchanges._write

    def fills(path: Path, content: memoryview) -> None:
        write(path, content)
        if path.is_relative_to(memory):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(exchanges, "SHARED_MEMORY", memory)
    monkeypatch.setattr(exchanges.tempfile, "tempdir", str(disk))
    monkeypatch.setattr(exchanges, "ROOM", 0)
    monkeypatch.setattr(exchanges, "_write", fills)
    exchange = Exchange()
    for number in range(2):
        found = exchange.write("bucket", memoryview(bytes([number])))
        assert found.is_relative_to(disk) and found.read_bytes() == bytes([number])
    assert list(memory.iterdir()) == []
    exchange.close()
    asked = Exchange(memory)
    with pytest.raises(OSError, match="No space left"):
        asked.write("bucket", memoryview(b"x"))
    asked.close()
    assert list(disk.iterdir()) == []
