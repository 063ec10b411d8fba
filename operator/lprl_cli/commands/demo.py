"""`lprl demo`: makes a small real model and a task, then runs the manifest the way `lprl run` does."""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from lprl_api.errors import UserError
from lprl_cli import exits
from lprl_cli.manifest import load_one

FIXTURES = "lprl_fixtures"
DEFAULT_MANIFEST = "examples/00-cpu-quickstart.yaml"


def epilog(_: str) -> str:
    """Examples for --help."""
    return (
        "examples:\n  lprl demo\n  lprl demo --dir /tmp/demo --manifest examples/00-cpu-quickstart.yaml\n\n"
        "Everything lies in one folder: volumes/ (model, prompts, conversions, checkpoints) and run/ (state, logs).\n\n" + exits.TABLE
    )


def add_arguments(parser: argparse.ArgumentParser, _: str) -> None:
    """Add this command's arguments."""
    parser.add_argument("--dir", default="demo-out", metavar="DIR", help="folder for everything; default demo-out")
    parser.add_argument("--manifest", metavar="FILE", help=f"default {DEFAULT_MANIFEST}")
    parser.add_argument("--architecture", help="architecture of the model that is made; default: what the manifest's name says, else qwen3")
    parser.add_argument("--shuffle-labels", action="store_true", help="the control: labels that do not fit the prompts; must not learn")
    parser.add_argument("--keep", action="store_true", help="go on with what is in DIR instead of starting over")
    parser.add_argument("--plain", action="store_true", help="lines instead of a live table")


def default_manifest() -> Path:
    """Return the example of a source checkout: below the working folder, or beside this package."""
    for root in (Path.cwd(), Path(__file__).resolve().parents[3]):
        if (root / DEFAULT_MANIFEST).exists():
            return root / DEFAULT_MANIFEST
    raise UserError(f"{DEFAULT_MANIFEST} is not here", "run this in a checkout of the repository, or give --manifest")


def run(args: argparse.Namespace) -> int:
    """Make the inputs, then run."""
    from lprl_cli.checked import checked_job
    from lprl_cli.commands.run import run_document

    root = Path(args.dir)
    manifest = load_one(args.manifest or str(default_manifest()))
    checked_job(manifest)
    if root.exists() and not args.keep:
        _clear(root)
    volumes = root / "volumes"
    volumes.parent.mkdir(parents=True, exist_ok=True)
    if not args.keep or not volumes.exists():
        _make_inputs(manifest.document, volumes, args)
    (root / ".lprl-demo").touch()
    settings = argparse.Namespace(
        state_dir=str(root / "run"), volumes=str(volumes), secrets=None, restart=False, sandbox=[], plain=args.plain, no_report=False
    )
    return run_document(manifest.document, settings)


def _clear(root: Path) -> None:
    """Remove an earlier demo; a folder that is not one is left alone."""
    if not (root / ".lprl-demo").exists() and any(root.iterdir()):
        raise UserError(f"{root} is no folder of an earlier demo", "give another --dir")
    shutil.rmtree(root)


def _make_inputs(document: dict, volumes: Path, args: argparse.Namespace) -> None:  # type: ignore[type-arg]
    """Write the model and the prompts where the manifest looks for them."""
    spec = document["spec"]
    claims = {name: v["persistentVolumeClaim"] for name, v in spec["volumes"].items()}
    source, prompts = spec["model"]["source"], spec["data"]["prompts"]
    model = volumes / claims[source["volume"]] / source["path"]
    data = (volumes / claims[prompts["volume"]] / prompts["path"]).parent
    architecture = args.architecture or document["metadata"].get("labels", {}).get("lprl.dev/demo-architecture", "qwen3")
    line = [sys.executable, "-m", FIXTURES, "--model", str(model), "--data", str(data), "--architecture", architecture]
    if args.shuffle_labels:
        line.append("--shuffle-labels")
    print("making a small model with random weights, and prompts with a verifiable answer", flush=True)
    done = subprocess.run(line, check=False)
    if done.returncode != 0:
        raise UserError(f"{' '.join(line[2:])} ended with exit code {done.returncode}", "its message is above")
