"""`lprl validate`: schema and rules, every error at once."""

import argparse
import json
from typing import Any

from lprl_api.errors import UserError
from lprl_api.field_error import FieldError, InvalidJob
from lprl_cli import exits
from lprl_cli.manifest import Manifest, load


def epilog(_: str) -> str:
    """Examples for --help."""
    return "examples:\n  lprl validate job.yaml\n  lprl validate examples/*.yaml --output json\n  lprl init qwen3-4b-fp8 | lprl validate -"


def add_arguments(parser: argparse.ArgumentParser, _: str) -> None:
    """Add this command's arguments."""
    parser.add_argument("files", nargs="+", metavar="FILE", help="manifest, or - for standard input")
    parser.add_argument("--output", choices=("table", "json"), default="table", help="default table")


def errors_of(manifest: Manifest) -> list[FieldError]:
    """Return every schema error and every rule a manifest breaks."""
    from lprl_api.parse import parse_job
    from lprl_api.rules import check

    try:
        return list(check(parse_job(manifest.document).spec))
    except InvalidJob as error:
        return list(error.errors)


def run(args: argparse.Namespace) -> int:
    """Check every file, print every error."""
    rows: list[dict[str, Any]] = []
    wrong = 0
    for file in args.files:
        try:
            manifests = load(file)
        except UserError as error:
            wrong += 1
            rows.append({"file": file, "valid": False, "error": error.message, "remedy": error.remedy, "errors": []})
            continue
        for manifest in manifests:
            found = errors_of(manifest)
            wrong += bool(found)
            errors = [{"at": manifest.where(e.path), "path": e.path, "got": e.got, "need": e.need} for e in found]
            rows.append({"file": file, "name": manifest.name or "?", "valid": not found, "errors": errors})
    if args.output == "json":
        print(json.dumps(rows, indent=1))
    else:
        for row in rows:
            _print(row)
    return exits.USER_ERROR if wrong else exits.OK


def _print(row: dict[str, Any]) -> None:
    if row["valid"]:
        print(f"{row['file']}: {row['name']} is valid")
    elif "error" in row:
        print(f"{row['error']}" + (f"\n  fix: {row['remedy']}" if row["remedy"] else ""))
    for error in row["errors"]:
        print(f"{error['at']}: {error['path']}\n    got  {error['got']}\n    need {error['need']}")
