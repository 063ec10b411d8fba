"""images/build.sh tells a builder that is there from one that works."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "images" / "build.sh"


CASES = {
    "nothing": ((), ""),
    "docker": (("docker",), "found, but not working (is the daemon running?): docker"),
    "two": (("docker", "podman"), ": docker podman"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_client_without_its_daemon_is_named_and_the_way_without_one_is_shown(case: str, tmp_path: Path) -> None:
    clients, words = CASES[case]
    for tool in ("sh", "dirname"):
        (tmp_path / tool).symlink_to(shutil.which(tool) or tool)
    for client in clients:
        (tmp_path / client).write_text("#!/bin/sh\necho 'Cannot connect to the Docker daemon' >&2\nexit 1\n")
        (tmp_path / client).chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if name != "BUILDER"} | {"PATH": str(tmp_path)}
    done = subprocess.run([str(tmp_path / "sh"), str(SCRIPT)], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert words in done.stderr and "images/build-without-docker.sh" in done.stderr, done.stderr
