"""Every error of a user's: each place that raises one names something and says what fits, so that none can be forgotten."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lprl_api.names import ExitCode
from lprl_operator.decide.failures import DRIVER
from lprl_operator.resources.jobs import failure_policy
from lprl_workload.__main__ import usage

ROOT = Path(__file__).parents[2]
SOURCES = ("api/lprl_api", "operator/lprl_cli", "operator/lprl_operator", "workload/lprl_workload")
USERS = ("NoRun", "StorageFullError", "UsageError", "UserError")
"""Errors of a message and a remedy."""
FIELDS = ("InvalidJob", "PlanError")
"""Errors of fields, each with what fits."""
FITS = re.compile(r"\b(needs?|at most|at least|fits?|must|exactly|compares with|one of|it is one of)\b")
"""Words of a message that says by itself what fits."""

NAMED = re.compile(r"[\w-]+(\.[\w-]+)+|--\w+|: |command")
LISTS = ("operator/lprl_cli/checked.py", "operator/lprl_cli/manifest.py")
"""Where every wrong field of a manifest has a line of its own, on a terminal."""


@dataclass(frozen=True)
class Site:
    """One call that makes an error of a user's."""

    file: str
    line: int
    call: ast.Call

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"

    @property
    def message(self) -> ast.expr | None:
        return self.call.args[0] if self.call.args else None

    @property
    def remedy(self) -> bool:
        return len(self.call.args) > 1 or any(k.arg == "remedy" for k in self.call.keywords)


def sites(kinds: tuple[str, ...]) -> Iterator[Site]:
    for folder in SOURCES:
        for path in sorted((ROOT / folder).rglob("*.py")):
            text = path.read_text()
            if not any(kind in text for kind in kinds):  # parsing takes longer than reading
                continue
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in kinds:
                    yield Site(str(path.relative_to(ROOT)), node.lineno, node)


ALL = list(sites(USERS))


def test_there_are_as_many_as_there_were() -> None:
    """The search finds them: it would be green on nothing."""
    assert len(ALL) > 250 and len(list(sites(FIELDS))) > 5


@pytest.mark.parametrize("site", ALL, ids=str)
def test_an_error_of_a_users_names_something_and_says_what_to_do(site: Site) -> None:
    assert site.message is not None, "an error without a message"
    text = ast.unparse(site.message)
    fixed = isinstance(site.message, ast.Constant)
    if site.file.startswith(("api/", "workload/")):  # what pods say is read far from what they were given
        assert not fixed or NAMED.search(text), f"{text} names no field, file or tensor"
    # A message that is a variable, or another error's, was made elsewhere, with its remedy.
    handed_on = not fixed and not isinstance(site.message, ast.JoinedStr)
    assert site.remedy or handed_on or FITS.search(text), f"{text}: what fits, or what to do?"
    strings = [n.value for n in ast.walk(site.call) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    assert not any("\n" in text for text in strings) or site.file in LISTS, "one line"


CODES = {name: value for name, value in vars(ExitCode).items() if name.isupper()}
DOCS = (ROOT / "docs/failure-modes.md").read_text()


@pytest.mark.parametrize("name", [n for n in CODES if n not in ("OK", "CRASH")])
def test_every_exit_code_has_a_verdict_a_help_line_and_a_row(name: str) -> None:
    code = CODES[name]
    assert code in DRIVER, "the failure table"
    assert f"{code} " in usage().split("exit codes:")[1]
    assert re.search(rf"^\| driver \|.*(exit {code}\b|, {code} \().*$", DOCS, re.MULTILINE), "who ended how"


def test_input_and_full_volumes_end_a_job_at_once() -> None:
    """For the driver by the operator's table, for inspection and conversion by the Job's own policy."""
    at_once = {code for code, (move, _, _) in DRIVER.items() if move == "fail"}
    policy = next(r["onExitCodes"]["values"] for r in failure_policy()["rules"] if "onExitCodes" in r)
    assert at_once == set(policy) == {ExitCode.USER_ERROR, ExitCode.STORAGE_FULL}
