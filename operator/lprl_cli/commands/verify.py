"""`lprl verify`: the workload's own command; the picture of its figures is drawn here, by the chart writer of reports."""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lprl_api.errors import UserError
from lprl_cli.commands.workload import pass_through
from lprl_cli.report.answers import TITLE, sensitivity_series
from lprl_cli.report.picture import write_svg

PICTURE = "--picture"


def verify(arguments: Sequence[str]) -> int:
    """Run the workload's command with the user's own arguments, and draw what it measured where --picture asks for it."""
    wanted, rest = taken(arguments)
    if wanted is None:
        return pass_through("verify", list(rest))
    if wanted.suffix != ".svg" or not wanted.parent.is_dir():
        raise UserError(f"{PICTURE} {wanted}: needs a file name that ends in .svg, in a folder that is there", f"{PICTURE} layers.svg")
    with tempfile.TemporaryDirectory(prefix="lprl-verify-") as folder:
        figures = given_json(rest) or Path(folder) / "figures.json"
        figures.unlink(missing_ok=True)
        code = pass_through("verify", [*rest, *([] if given_json(rest) else ["--json", str(figures)])])
        if figures.is_file():
            draw(json.loads(figures.read_text(encoding="utf-8")).get("answers"), wanted)
    return code


def taken(arguments: Sequence[str]) -> tuple[Path | None, list[str]]:
    """Return the value of --picture and the arguments without it. Raises UserError where it has none."""
    rest, wanted, words = list[str](), None, iter(arguments)
    for word in words:
        name, equals, value = word.partition("=")
        if name != PICTURE:
            rest.append(word)
            continue
        value = value if equals else next(words, "")
        if not value:
            raise UserError(f"{PICTURE}: needs a file", f"{PICTURE} layers.svg")
        wanted = Path(value)
    return wanted, rest


def given_json(arguments: Sequence[str]) -> Path | None:
    """Return the file of --json, None where it is not given."""
    for place, word in enumerate(arguments):
        name, equals, value = word.partition("=")
        if name == "--json":
            found = value if equals else (arguments[place + 1] if place + 1 < len(arguments) else "")
            return Path(found) if found else None
    return None


def draw(answers: dict[str, Any] | None, file: Path) -> None:
    """Write the picture. Raises UserError where nothing was measured that could be drawn."""
    series = sensitivity_series(answers or {})
    if not series:
        raise UserError(f"{PICTURE} {file}: no sensitivity was measured", "give --prompts, and not --sensitivity none")
    write_svg(TITLE, series, file, "layer", keyed=True)
