"""Prints the requirements of an image: pyproject's dependencies and some extras, pinned where constraints.txt pins them.

usage: requirements.py [--without NAME]... EXTRA...      run in the folder that holds pyproject.toml and constraints.txt
"""

import argparse
import re
import tomllib
from pathlib import Path


def plain(requirement: str) -> str:
    """Return the normalised name of a requirement: `Ray[default]>=2` is `ray`."""
    name = re.match(r"[A-Za-z0-9._-]+", requirement)
    if name is None:
        raise SystemExit(f"{requirement!r} is no requirement")
    return re.sub(r"[-_.]+", "-", name.group()).lower()


def requirements(project: dict[str, list[str]], extras: dict[str, list[str]], pins: dict[str, str], without: set[str]) -> list[str]:
    """Return sorted requirements; a pinned one keeps its extras: `ray[default]==2.60.0`."""
    wanted = [*project["dependencies"], *(line for lines in extras.values() for line in lines)]
    found = set()
    for line in wanted:
        name = plain(line)
        if name in without:
            continue
        bracket = re.search(r"\[[^]]*\]", line)
        found.add(f"{name}{bracket.group() if bracket else ''}=={pins[name]}" if name in pins else line)
    return sorted(found)


def main() -> None:
    """Print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("extras", nargs="+", metavar="EXTRA")
    parser.add_argument("--without", action="append", default=[], metavar="NAME", help="leave this package out")
    args = parser.parse_args()
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    lines = (line.split("#")[0].strip() for line in Path("constraints.txt").read_text().splitlines())
    pins = {plain(name): version for name, version in (line.split("==") for line in lines if line)}
    extras = {name: project["optional-dependencies"][name] for name in args.extras}
    print("\n".join(requirements(project, extras, pins, {plain(name) for name in args.without})))


if __name__ == "__main__":
    main()
