"""What the pages for one machine show, run as they print it: in their order, in one folder, with a new user's environment."""

import os
import subprocess
import sys
from itertools import groupby
from pathlib import Path

import pytest
from tests.pages import RUN_BY, Section, script, shown

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]
PAGES = [list(sections) for _, sections in groupby(RUN_BY["tests/demo/test_pages.py"], key=lambda section: section[0])]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a reader follows page after page."""
    return tmp_path_factory.mktemp("reader")


@pytest.mark.parametrize("sections", PAGES, ids=lambda sections: sections[0][0])
def test_the_commands_of_a_page_do_what_it_says(sections: list[Section], folder: Path) -> None:
    text = script([block for section in sections for block in shown(section)], folder)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}  # `make setup` puts them there
    done = subprocess.run(["bash"], input=text, cwd=folder, env=environment, capture_output=True, text=True, timeout=800, check=False)
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
