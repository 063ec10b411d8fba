"""Every command a page shows is run by a test, or says above it why none can."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from tests.pages import LANGUAGES, ROOT, RUN_BY, Block, Section, blocks, pages, script, shown

from lprl_api.catalog.images import missing_backends
from lprl_api.catalog.presets import preset_manifest
from lprl_api.rules.parse import parse_job

ALL = [block for page in pages() for block in blocks(page)]
COMMANDS = [block for block in ALL if block.language == "console"]
PAGE = """# First
<!-- not-run: needs a GPU -->
```console
$ nvidia-smi
```
## Second `part`
```yaml
# job.yaml
kind: Job
```
<!-- exit 3: the file is not there -->
```console
$ echo one \\
    two
one two
$ cat job.yaml >copy; exit 3
```
prose
```text
$ not a command
```
"""


def run_by() -> dict[Section, list[str]]:
    """Who runs a section, by section."""
    found: dict[Section, list[str]] = {}
    for test, sections in RUN_BY.items():
        for section in sections:
            found.setdefault(section, []).append(test)
    return found


@pytest.mark.parametrize("block", COMMANDS, ids=str)
def test_every_block_of_commands_is_run_by_a_test_or_says_why_not(block: Block) -> None:
    runs = run_by().get((block.page, block.section))
    assert runs or block.not_run, f"{block}: name {block.section!r} in tests/pages.py, or put <!-- not-run: why --> above the block"


@pytest.mark.parametrize("section", [s for sections in RUN_BY.values() for s in sections], ids=": ".join)
def test_every_section_that_is_run_exists_and_shows_commands(section: Section) -> None:
    assert shown(section), section
    assert len(run_by()[section]) == 1, f"{section} is run by {run_by()[section]}"


@pytest.mark.parametrize("test", RUN_BY)
def test_who_runs_sections_takes_them_from_the_table(test: str) -> None:
    assert "RUN_BY[" in (ROOT / test).read_text(), f"{test} does not run what tests/pages.py says"


@pytest.mark.parametrize("block", ALL, ids=str)
def test_every_block_says_its_language(block: Block) -> None:
    assert block.language in LANGUAGES, f"{block}: {block.language or 'no language'}: {', '.join(LANGUAGES)}"


@pytest.mark.parametrize("block", COMMANDS, ids=str)
def test_every_block_of_commands_shows_one(block: Block) -> None:
    assert block.commands(), f"{block}: no line begins with '$ '; mere output is ```text"


APPLIED = [pytest.param(block, id=str(block)) for block in COMMANDS if "kubectl apply" in block.text and not block.not_run]


@pytest.mark.parametrize("block", APPLIED)
def test_a_job_that_a_page_applies_is_one_the_images_can_run(block: Block) -> None:
    # An API server takes it anyway: the command exits with 0, and the job is Failed half a minute later.
    manifests: dict[str, str] = {}
    for command in block.commands():
        if made := re.search(r"lprl init (\S+) > (\S+)", command):
            manifests[made[2]] = yaml.safe_dump(preset_manifest(made[1]))
        elif made := re.search(r"(?:-f|sed '[^']*') (\S+\.yaml).* > (\S+)", command):
            manifests[made[2]] = manifests.get(made[1]) or (ROOT / made[1]).read_text()
        elif named := re.search(r"apply .*-f (examples/\S+)", command):
            manifests[named[1]] = (ROOT / named[1]).read_text()
    jobs = [job for text in manifests.values() for job in yaml.safe_load_all(text) if job.get("kind") == "LowPrecisionRLJob"]
    assert [missing_backends(parse_job(job).spec) for job in jobs] == [[] for _ in jobs]


def test_a_page_is_read_into_blocks() -> None:
    first, job, second, output = blocks("x.md", PAGE)
    assert (first.line, first.section, first.not_run, first.commands()) == (3, "First", "needs a GPU", ["nvidia-smi"])
    assert (job.section, job.file_name(), job.text) == ("Second `part`", "job.yaml", "# job.yaml\nkind: Job\n")
    assert (second.line, second.exit_code, second.not_run) == (12, 3, "")
    assert second.commands() == ["echo one two", "cat job.yaml >copy; exit 3"]
    assert (output.language, output.commands()) == ("text", ["not a command"])


def test_a_mark_counts_for_the_block_directly_below_it_only() -> None:
    apart = "<!-- not-run: x -->\n\n```console\n$ a\n```\n<!-- not-run: y -->\n```console\n$ b\n```\n```console\n$ c\n```\n"
    assert [b.not_run for b in blocks("x.md", apart)] == ["", "y", ""]


def test_a_block_that_is_never_closed_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"x\.md:2: the block is never closed"):
        blocks("x.md", "text\n```console\n$ a\n")


def bash(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash"], input=text, cwd=folder, capture_output=True, text=True, timeout=30, check=False)


def test_what_is_run_is_what_the_page_shows(tmp_path: Path) -> None:
    found = [b for b in blocks("x.md", PAGE.replace("; exit 3", "; (exit 3)")) if not b.not_run]
    done = bash(script(found, tmp_path), tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "one two\n" and (tmp_path / "copy").read_text() == "# job.yaml\nkind: Job\n"


@pytest.mark.parametrize(
    "text",
    [
        "```console\n$ false\n$ true\n```\n",
        "```console\n$ false | cat\n```\n",
        "<!-- exit 3: x -->\n```console\n$ (exit 2)\n```\n",
        "<!-- exit 3: x -->\n```console\n$ true\n```\n",
        "<!-- exit 3: x -->\n```console\n$ (exit 3)\n$ true\n```\n",
    ],
    ids=["a command fails", "the first of a pipe fails", "another exit code", "no failure", "the exit code is an earlier command's"],
)
def test_a_command_that_does_not_do_what_the_page_says_ends_the_script(text: str, tmp_path: Path) -> None:
    done = bash(script(blocks("x.md", text), tmp_path), tmp_path)
    assert done.returncode != 0 and "x.md:" in done.stderr
