"""`lprl inspect`, `convert`, `verify` and `export`: the workload's own commands, run as a process with its progress passed through."""

import argparse
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lprl_api import names
from lprl_api.errors import UserError
from lprl_api.model.by_class import trained_types
from lprl_api.model.model_shape import Inspection
from lprl_cli import exits
from lprl_cli.cluster.place import called_as_kubectl

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


def environment(name: str) -> dict[str, str]:
    """Return the environment in which a workload command says, in help and errors, how the user called it."""
    return {**os.environ, names.ENV_CALLED_AS: f"{'kubectl lprl' if called_as_kubectl() else 'lprl'} {name}"}


def check_installed(name: str) -> None:
    """Raise UserError where the packages that a workload command needs are not installed, as beside `.[operator]` alone."""
    if find_spec("torch") is None:
        elsewhere = ", or inspect where it is: `lprl inspect FOLDER --output json > i.json`" if name == "inspect" else ""
        raise UserError(f"lprl {name} reads models, and torch is not installed here", f"pip install '.[cpu]' in the checkout{elsewhere}")


def pass_through(name: str, arguments: list[str]) -> int:
    """Run a workload command with the user's own arguments; it explains itself under the name it is called by here."""
    if not {"-h", "--help"} & set(arguments):
        check_installed(name)
    return subprocess.run(command_line(WORKLOAD[name], *arguments), check=False, env=environment(name)).returncode


def inspect(source: Path) -> dict[str, Any]:
    """Return the Inspection document of a model folder.

    Raises:
        UserError: there is no model folder, or the workload's packages are not installed.
        SystemExit: the folder cannot be read as a model; the workload said why, and this carries its exit code.

    """
    if not (source / "config.json").exists():
        raise UserError(f"{source}: no config.json there", "give a Hugging Face model folder")
    check_installed("inspect")
    line = command_line("inspect", "--folder", str(source))
    done = subprocess.run(line, check=False, stdout=subprocess.PIPE, text=True, env=environment("inspect"))
    if done.returncode != 0:
        raise SystemExit(done.returncode)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def inspection_of(document: dict[str, Any], source: str) -> Inspection:
    """Return what `inspect` found as an Inspection. Raises UserError for a model that is converted only, which no job can train."""
    document = document.get("inspection") or document
    if "shape" not in document:
        what = f"{source}: model_type {document['modelType']} cannot be trained here; model_types that can: {trained_types()}"
        raise UserError(what, "name one of these; lprl convert takes this one")
    return Inspection.model_validate(document)


def run(args: argparse.Namespace) -> int:
    """`lprl inspect`; the others are passed through before their arguments are parsed."""
    found = inspect(Path(args.source))
    print(json.dumps(found, indent=2) if args.output == "json" else _table(args.source, found))
    return exits.OK


def _architecture(inspection: dict[str, Any]) -> str:
    """Return the class that config.json names, and of a multimodal model the class of its language model beside it."""
    text, whole = inspection["shape"]["architecture"], inspection.get("modelClass")
    return f"{whole} (language model: {text})" if whole else text


def _table(source: str, inspection: dict[str, Any]) -> str:
    if "shape" not in inspection:
        return _lines(_by_rule(source, inspection))
    shape, quantization = inspection["shape"], inspection["quantization"]
    rows = [
        ("folder", source),
        ("architecture", f"{_architecture(inspection)}, {shape['layers']} layers, hidden {shape['hidden']}"),
        ("experts", shape["moe"]["experts"] if shape.get("moe") else "none"),
        ("weights", f"{inspection['totalBytes'] / 2**30:.2f} GiB in {inspection['tensors']} tensors, {inspection['shards']} shards"),
        ("precision", shape["dtype"] if quantization["format"] == "none" else quantization["format"]),
        ("fingerprint", inspection["fingerprint"]),
    ]
    return _lines(rows)


def _lines(rows: list[tuple[str, Any]]) -> str:
    return "\n".join(f"{name:<13} {value}" for name, value in rows)


def _by_rule(source: str, look: dict[str, Any]) -> list[tuple[str, Any]]:
    """Rows of a model whose family has no table: what a conversion quantises, and how that is known."""
    ways = {"class": f"the class {look['modelClass']} says names and layout", "index": "by index, names and shapes alone"}
    refused = look.get("refused") or ()
    trained = "trained by its class (torch)" if look.get("inspection") else "converted only, not trained here"
    return [
        ("folder", source),
        ("architecture", f"{look['modelClass']}, {look['layers']} layers; {trained}"),
        ("read", ways[look["way"]]),
        ("experts", look["experts"] or "none"),
        ("linear", f"{look['linear']} weights, {look['routed']} of them routed experts'"),
        *(("not INT4, FP8", told) for told in refused[:1]),
        ("weights", f"{look['totalBytes'] / 2**30:.2f} GiB in {look['tensors']} tensors, {look['shards']} shards"),
        ("precision", "as stored" if look["quantization"]["format"] == "none" else look["quantization"]["format"]),
        ("fingerprint", look["fingerprint"]),
    ]
