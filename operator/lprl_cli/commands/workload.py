"""`lprl inspect`, `convert`, `verify` and `export`: the workload's own commands, run as a process with its progress passed through."""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from lprl_api.errors import UserError
from lprl_cli import exits

WORKLOAD = {"inspect": "inspect", "convert": "convert-all", "verify": "verify", "export": "export"}


def epilog(name: str) -> str:
    """Examples for --help."""
    return {
        "inspect": "examples:\n  lprl inspect volumes/models/Qwen3-4B\n  lprl inspect volumes/models/Qwen3-4B --output json",
    }.get(name, "")


def add_arguments(parser: argparse.ArgumentParser, name: str) -> None:
    """Add this command's arguments."""
    if name == "inspect":
        parser.add_argument("source", metavar="FOLDER", help="Hugging Face model folder of safetensors")
        parser.add_argument("--output", choices=("table", "json"), default="table", help="default table")


def command_line(*arguments: str) -> list[str]:
    """Return the command line of a workload subcommand."""
    return [sys.executable, "-m", "lprl_workload", *arguments]


def pass_through(name: str, arguments: list[str]) -> int:
    """Run a workload command with the user's own arguments; its help says how it is called here."""
    line = command_line(WORKLOAD[name], *arguments)
    if not {"-h", "--help"} & set(arguments):
        return subprocess.run(line, check=False).returncode
    done = subprocess.run(line, check=False, capture_output=True, text=True)
    print(done.stdout.replace(f"python -m lprl_workload {WORKLOAD[name]}", f"lprl {name}"), end="")
    print(done.stderr, end="", file=sys.stderr)
    return done.returncode


def inspect(source: Path) -> dict[str, Any]:
    """Return the Inspection document of a model folder.

    Raises:
        UserError: the folder cannot be read as a model; the workload said why.

    """
    if not (source / "config.json").exists():
        raise UserError(f"{source}: no config.json there", "give a Hugging Face model folder")
    done = subprocess.run(command_line("inspect", "--folder", str(source)), check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise UserError(f"{source}: not inspected (exit code {done.returncode})", "the cause is above")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def run(args: argparse.Namespace) -> int:
    """`lprl inspect`; the others are passed through before their arguments are parsed."""
    found = inspect(Path(args.source))
    print(json.dumps(found, indent=2) if args.output == "json" else _table(args.source, found))
    return exits.OK


def _table(source: str, inspection: dict[str, Any]) -> str:
    shape, quantization = inspection["shape"], inspection["quantization"]
    rows = [
        ("folder", source),
        ("architecture", f"{shape['architecture']}, {shape['layers']} layers, hidden {shape['hidden']}"),
        ("experts", shape["moe"]["experts"] if shape.get("moe") else "none"),
        ("weights", f"{inspection['totalBytes'] / 2**30:.2f} GiB in {inspection['tensors']} tensors, {inspection['shards']} shards"),
        ("precision", shape["dtype"] if quantization["format"] == "none" else quantization["format"]),
        ("fingerprint", inspection["fingerprint"]),
    ]
    return "\n".join(f"{name:<13} {value}" for name, value in rows)
