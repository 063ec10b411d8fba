"""The commands of README.md, docs/ and the like, as the pages print them, so that tests run what a reader pastes.

A fenced block says its language: `console`, `yaml`, `text`, `python`. In `console` a line that begins with `$ ` is a command (one that
ends in a backslash goes on in the next line), every other line is what it prints. A `yaml` block whose first line is `# NAME.yaml` is
that file.
A comment directly above a block, invisible where the page is read, says what is special about it:

    <!-- not-run: why no test can -->
    <!-- exit 2: why the block's last command ends so -->
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
LANGUAGES = ("console", "yaml", "text", "python")
Section = tuple[str, str]
"""A page and one of its headings."""

RUN_BY: dict[str, tuple[Section, ...]] = {
    "tests/demo/test_pages.py": (
        ("README.md", "The manifest"),
        ("docs/quickstart.md", "Your own run"),
        ("docs/quickstart.md", "On GPUs and clusters"),
        ("docs/tuning-stability.md", "The guard"),
        ("docs/converting.md", "Converting by hand"),
        ("docs/converting.md", "Look first"),
        ("docs/converting.md", "To FP8 or INT4"),
        ("docs/converting.md", "Verify"),
        ("docs/converting.md", "Back to BF16"),
        ("docs/converting.md", "Export a trained checkpoint"),
        ("docs/precision-guide.md", "In short"),
        ("docs/precision-guide.md", "Memory"),
    ),
    "tests/cluster/test_first_job.py": (
        ("docs/install.md", "1. KubeRay"),
        ("docs/install.md", "3. The operator"),
        ("docs/install.md", "4. A first job"),
    ),
    "tests/cluster/test_training_job.py": (
        ("docs/kubectl-lprl.md", "Status"),
        ("docs/kubectl-lprl.md", "Logs"),
        ("docs/kubectl-lprl.md", "Metrics"),
    ),
    "tests/cluster/test_pages.py": (
        ("docs/security.md", "Who may do what"),
        ("docs/upgrade.md", "Before"),
        ("docs/upgrade.md", "The upgrade"),
        ("docs/install.md", "Values worth knowing"),
        ("docs/install.md", "Metrics, dashboard, alerts"),
        ("docs/upgrade.md", "Back"),
        ("docs/install.md", "Uninstall"),
        ("docs/install.md", "One namespace, without cluster rights"),
        ("docs/upgrade.md", "The CRD"),
        ("README.md", "State of the project"),
        ("docs/kueue.md", "Setting it up"),
    ),
}
"""Who runs what, in the order in which it runs there: a section's commands need what those before left behind."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    line: int
    """Of its opening fence, from 1."""
    section: str
    """The heading above it, empty before the first one."""
    language: str
    text: str
    not_run: str = ""
    """Why no test runs it."""
    exit_code: int = 0
    """What the last command ends with."""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    def commands(self) -> list[str]:
        """Return the commands of a console block."""
        joined = re.sub(r"\\\n\s*", "", self.text)
        return [line[2:].strip() for line in joined.splitlines() if line.startswith("$ ")]

    def file_name(self) -> str:
        """Return the name of the file this block is, empty where it is none."""
        named = re.match(r"# ([\w.-]+\.yaml)\n", self.text)
        return named[1] if named and self.language == "yaml" else ""


def pages() -> list[str]:
    """Return every page of the repository, as paths below its root."""
    found = (p.relative_to(ROOT) for top in ROOT.iterdir() if not top.name.startswith(".") for p in (top, *top.rglob("*.md")))
    return sorted(str(p) for p in found if p.suffix == ".md" and not any(part.endswith("-out") for part in p.parts))


def blocks(page: str, text: str | None = None) -> list[Block]:
    """Return the fenced blocks of a page; `text` instead of what it holds. Raises ValueError at a fence that is never closed."""
    found: list[Block] = []
    section = mark = opened = ""
    body: list[str] = []
    start = 0
    for number, line in enumerate((ROOT / page).read_text().splitlines() if text is None else text.splitlines(), 1):
        if opened:
            if line.strip() == "```":
                found.append(_block(page, start, section, opened[3:], body, mark))
                opened = mark = ""
            else:
                body.append(line)
        elif line.lstrip().startswith("```"):
            opened, start, body = line.strip(), number, []
        elif heading := re.match(r"#+ (.+)", line):
            section, mark = heading[1], ""
        else:
            mark = line
    if opened:
        raise ValueError(f"{page}:{start}: the block is never closed")
    return found


def _block(page: str, line: int, section: str, language: str, body: list[str], mark: str) -> Block:
    skipped, ends = re.fullmatch(r"<!-- not-run: (.+) -->", mark), re.fullmatch(r"<!-- exit (\d+): .+ -->", mark)
    text = "\n".join(body) + "\n"
    return Block(page, line, section, language, text, skipped[1] if skipped else "", int(ends[1]) if ends else 0)


def shown(section: Section) -> list[Block]:
    """Return a section's blocks that a test runs or writes to a file. Raises LookupError when it has no command."""
    page, heading = section
    found = [b for b in blocks(page) if b.section == heading and not b.not_run]
    if not any(b.language == "console" for b in found):
        raise LookupError(f"{page} shows no command below {heading!r}")
    return found


def script(found: Iterable[Block], folder: Path) -> str:
    """Return a bash script of the blocks' commands, which ends at the first that fails; their files are written into a folder."""
    lines = ["set -euo pipefail"]
    for block in found:
        if name := block.file_name():
            (folder / name).write_text(block.text)
        if block.language != "console":
            continue
        *before, last = block.commands()
        lines += [_told(block, command) for command in before]
        if block.exit_code:
            lines.append(f"{_told(block, 'ended=0')}\n{last} || ended=$?\n[ $ended = {block.exit_code} ]")
        else:
            lines.append(_told(block, last))
    return "\n".join(lines) + "\n"


def _told(block: Block, command: str) -> str:
    """A command behind a line that says where it is from, for who reads why it failed."""
    return f"echo {str(block)!r} >&2\n{command}"
