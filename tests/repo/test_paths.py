"""Every path that a page names is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOP = tuple(sorted(path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")))
PAGES = sorted({*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")} - {ROOT / "CHANGELOG.md"})
PATH = re.compile(r"`([\w./-]+)`")
ROOMS = [ROOT / "api/lprl_api", ROOT / "operator/lprl_operator", ROOT / "workload/lprl_workload"]


def named(page: Path) -> list[str]:
    """Return the paths of this repository that a page names from its root, but those of files that are to be made (NAME)."""
    return [path for path in PATH.findall(page.read_text()) if path.startswith(tuple(f"{name}/" for name in TOP)) and "NAME" not in path]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_path_that_a_page_names_is_there(page: Path) -> None:
    assert [path for path in named(page) if not (ROOT / path).exists()] == []


def test_every_file_the_architecture_names_is_in_some_room() -> None:
    """Its table names files by their folder, and files beside them by their name alone."""
    known = {path.name for room in (*ROOMS, ROOT / "tests") for path in room.rglob("*")}
    text = (ROOT / "ARCHITECTURE.md").read_text()
    files = [path for path in PATH.findall(text) if path.endswith(".py")]
    assert len(files) > 10 and [path for path in files if path.rpartition("/")[2] not in known] == []


def test_every_stage_the_picture_shows_is_a_room() -> None:
    picture = (ROOT / "ARCHITECTURE.md").read_text().partition("```text")[2].partition("```")[0]
    rooms = {path.stem for room in ROOMS for path in room.iterdir()} | {"lprl_api", "lprl_operator", "lprl_workload"}
    shown = [word for word in re.findall(r"[a-z_]+(?= >)|(?<=> )[a-z_]+", picture) if word != "manifest"]
    assert len(shown) > 20 and [word for word in shown if word not in rooms] == []
