"""`lprl validate`: schema and rules, every error at once, and warnings."""

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


def judged(manifest: Manifest) -> tuple[list[FieldError], list[FieldError]]:
    """Return every schema error and every rule a manifest breaks, and the warnings on it."""
    from lprl_api.rules.advice import advise
    from lprl_api.rules.check import check
    from lprl_api.rules.parse import parse_job
    from lprl_api.rules.queueing import check_queueing

    try:
        job = parse_job(manifest.document)
    except InvalidJob as error:
        return list(error.errors), []
    return [*check(job.spec), *check_queueing(job)], advise(job.spec)


def run(args: argparse.Namespace) -> int:
    """Check every file, print every error."""
    rows: list[dict[str, Any]] = []
    wrong = 0
    for file in args.files:
        try:
            manifests = load(file)
        except UserError as error:
            wrong += 1
            rows.append({"file": file, "valid": False, "error": error.message, "remedy": error.remedy, "errors": [], "warnings": []})
            continue
        for manifest in manifests:
            found, told = judged(manifest)
            wrong += bool(found)
            row = {"file": file, "name": manifest.name or "?", "valid": not found}
            rows.append({**row, "errors": _fields(manifest, found), "warnings": _fields(manifest, told)})
    if args.output == "json":
        print(json.dumps(rows, indent=1))
    else:
        for row in rows:
            _print(row)
    return exits.USER_ERROR if wrong else exits.OK


def _fields(manifest: Manifest, found: list[FieldError]) -> list[dict[str, str]]:
    return [{"at": manifest.where(e.path), "path": e.path, "got": e.got, "need": e.need} for e in found]


def _print(row: dict[str, Any]) -> None:
    if row["valid"]:
        print(f"{row['file']}: {row['name']} is valid")
    elif "error" in row:
        print(f"{row['error']}" + (f"\n  fix: {row['remedy']}" if row["remedy"] else ""))
    for error in row["errors"]:
        print(f"{error['at']}: {error['path']}\n    got  {error['got']}\n    need {error['need']}")
    for told in row["warnings"]:
        print(f"{told['at']}: warning: {told['path']}\n    got  {told['got']}\n    fits {told['need']}")
