"""CONTRIBUTING's recipes: at most three files each, which exist; and following one to the letter gives what it promises."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.contract.rollout_bench import ENGINES
from tests.unit.lprl_operator.world import SETTINGS, World, manifest

from lprl_api.catalog.images import HELD
from lprl_api.names import Condition
from lprl_operator.controller import reconcile
from lprl_operator.decide import decide
from lprl_operator.decide.decision import Decision, Finding
from lprl_workload.launch.backends import engine_class

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent / "recipes"
FILES = re.compile(r"^  \d\. `([^`]+)`(.*)", re.MULTILINE)


def recipes() -> dict[str, list[tuple[str, str]]]:
    """Recipe -> (file, what is said of it), of those that count their files."""
    text = (ROOT / "CONTRIBUTING.md").read_text().partition("## Recipes")[2].partition("\n## ")[0]
    parts = re.split(r"^- \*\*(.+?)\*\*", text, flags=re.MULTILINE)[1:]
    return {name: FILES.findall(body) for name, body in zip(parts[::2], parts[1::2], strict=True)}


@pytest.mark.parametrize("name", ["A weight format", "An engine", "A rollout function", "A condition"])
def test_a_recipe_names_at_most_three_files(name: str) -> None:
    assert 1 <= len(recipes()[name]) <= 3


def test_what_a_recipe_names_is_there() -> None:
    missing = []
    for name, files in recipes().items():
        for path, said in files:
            if "NAME" in path:  # the new file: where it goes has to be there
                missing += [(name, path)] if not (ROOT / path).parent.is_dir() else []
                continue
            text = (ROOT / path).read_text() if (ROOT / path).is_file() else ""
            symbols = re.findall(r"`([A-Za-z_][\w.]*)`", said)
            missing += [(name, path)] if not text else [(name, f"{path}: {s}") for s in symbols if s.rpartition(".")[2] not in text]
    assert not missing


def changed(path: str, *pairs: tuple[str, str]) -> str:
    """Return a file of the repository with texts replaced, each of which must stand there once."""
    text = (ROOT / path).read_text()
    for old, new in pairs:
        assert text.count(old) == 1, (path, old)
        text = text.replace(old, new)
    return text


def follow(tmp_path: Path, recipe: str, made: dict[str, str], script: str, timeout_s: int = 600) -> None:
    """Copy the sources, write the recipe's files into the copy (and no others), and run a script against it."""
    allowed = [path.replace("NAME", "*") for path, _ in recipes()[recipe]]
    assert all(any(Path(path).match(pattern) for pattern in allowed) for path in made), (allowed, list(made))
    for root in ("api", "operator", "workload"):
        shutil.copytree(ROOT / root, tmp_path / root, ignore=shutil.ignore_patterns("__pycache__"))
    for path, text in made.items():
        (tmp_path / path).write_text(text)
    # The copy's own folders come before the installed ones.
    paths = os.pathsep.join(str(tmp_path / root) for root in ("api", "operator", "workload"))
    done = subprocess.run(
        [sys.executable, str(HERE / script), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_following_the_recipe_makes_a_weight_format(tmp_path: Path) -> None:
    registry = "api/lprl_api/model/formats/__init__.py"
    first = "from lprl_api.model.formats.int4_group import Int4Group\n"
    made = {
        "api/lprl_api/model/formats/int8_row.py": (HERE / "int8_row_format.py").read_text(),
        registry: changed(
            registry,
            (first, f"{first}from lprl_api.model.formats.int8_row import Int8Row\n"),
            ('"int4-group"]', '"int4-group", "int8-row"]'),
            ("Fp8Tensor | Int4Group, Field", "Fp8Tensor | Int4Group | Int8Row, Field"),
        ),
        "workload/lprl_workload/quant/int8_row.py": (HERE / "int8_row_kernels.py").read_text(),
    }
    follow(tmp_path, "A weight format", made, "use_int8_row.py")


def test_every_engine_the_images_hold_is_made_and_runs_through_the_contract_suite() -> None:
    assert {name: engine_class(name) for name in HELD["rollout"]} == ENGINES
    with pytest.raises(ValueError, match="made by nobody"):
        engine_class("another")


def test_following_the_recipe_makes_a_condition(monkeypatch: pytest.MonkeyPatch) -> None:
    """A constant and a stage are enough: status, its time and its event follow from what the stage finds."""
    found = Finding("Audited", "True", "NothingMissing", "42 files")
    monkeypatch.setattr(Condition, "ALL", (*Condition.ALL, "Audited"))
    monkeypatch.setattr(decide, "STAGES", (lambda case: Decision(case.status, (found,), (), 60.0), *decide.STAGES))
    world = World(manifest())
    assert reconcile(world.cached_document(), world, world.now, SETTINGS) == 60.0
    (told,) = [c for c in world.cached_document()["status"]["conditions"] if c["type"] == "Audited"]
    assert (told["status"], told["reason"], told["message"]) == ("True", "NothingMissing", "42 files")
    assert told["lastTransitionTime"] == "2026-01-01T00:00:00Z"
