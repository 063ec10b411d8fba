"""The house rules a tool can check: folder traps, file and function budgets, public wording."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(p for root in ("api", "operator", "workload", "tests", "benchmarks") for p in (ROOT / root).rglob("*.py"))
"""Tests are held to the budgets as what they test."""
MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 40


def test_operator_is_not_a_package() -> None:
    assert not (ROOT / "operator" / "__init__.py").exists(), "it would shadow the standard library's operator"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_budgets(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= MAX_FILE_LINES, f"{path} has {text.count(chr(10))} lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
            lines = node.end_lineno - node.lineno + 1
            assert lines <= MAX_FUNCTION_LINES, f"{path}:{node.lineno} {node.name} has {lines} lines"


def test_readme_fits_and_leads_with_the_two_commands() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 120
    head = "\n".join(lines[:35])
    assert "make demo" in head and "make test" in head


def test_ci_runs_the_two_commands_of_the_readme() -> None:
    commands = set(re.findall(r"^\$ (make [a-z-]+)", (ROOT / "README.md").read_text(), re.M))
    assert commands == {"make demo", "make test"}
    steps = (ROOT / ".ci" / "run").read_text().splitlines()
    assert all(any(step.endswith(command) for step in steps) for command in commands)


@pytest.mark.parametrize("name", ["ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "Makefile", ".ci/run", "docs/log.md"])
def test_house_files_exist(name: str) -> None:
    assert (ROOT / name).is_file()


def test_links_in_documents_resolve() -> None:
    broken = []
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\((?!https?://|#|mailto:)([^)#]+)", page.read_text()):
            if not (page.parent / target).exists():
                broken.append(f"{page.relative_to(ROOT)} -> {target}")
    assert not broken
