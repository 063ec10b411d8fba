"""`lprl init`: the manifest of a preset."""

import argparse
import re
import sys
from pathlib import Path
from typing import Any

from lprl_api import names
from lprl_api.errors import UserError
from lprl_cli import exits


def epilog(_: str) -> str:
    """Examples for --help."""
    return (
        "examples:\n  lprl init                                list the presets\n"
        "  lprl init qwen3-30b-a3b-int4 > job.yaml\n  lprl init qwen3-4b-fp8 --out job.yaml\n"
        "  lprl init qwen3-4b-fp8 --queue blue --preparing-queue small > job.yaml"
    )


def add_arguments(parser: argparse.ArgumentParser, _: str) -> None:
    """Add this command's arguments."""
    parser.add_argument("preset", nargs="?", metavar="PRESET", help="name of a preset; none: list them")
    parser.add_argument("--queue", metavar="NAME", help="LocalQueue of Kueue that the job waits in; default none")
    parser.add_argument(
        "--preparing-queue", metavar="NAME", help="another one for its inspection and conversions, such as a small one with CPUs only"
    )
    parser.add_argument("--out", metavar="FILE", help="where to write; default standard output. An existing file is not overwritten")


def run(args: argparse.Namespace) -> int:
    """Write the manifest; deviations from the published setup and warnings are comments."""
    from lprl_api.catalog.presets import PRESETS, preset_manifest
    from lprl_api.catalog.presets_planned import PLANNED
    from lprl_api.rules.advice import advise
    from lprl_api.rules.parse import parse_job

    if args.preset is None:
        for preset in PRESETS.values():
            layout = f"{preset.nodes} x {preset.gpus_per_node} {preset.accelerator}"
            print(f"{preset.name:<26} {layout:<20} trains {preset.shape} in {preset.training}")
        return exits.OK
    if args.preset in PLANNED:
        raise UserError(
            f"{args.preset}: no trainer trains {PLANNED[args.preset].shape} yet", f"lprl plan {args.preset} says what it would need"
        )
    if args.preset not in PRESETS:
        raise UserError(f"{args.preset}: no such preset", f"one of {', '.join(PRESETS)}")
    import yaml

    preset = PRESETS[args.preset]
    lines = [f"# {preset.name}: {preset.shape} on {preset.nodes} x {preset.gpus_per_node} {preset.accelerator}."]
    lines += [f"# Deviation from the published setup: {text}" for text in preset.deviations]
    manifest = _queued(preset_manifest(args.preset), args.queue, args.preparing_queue)
    lines += [f"# {told.path}: got {told.got}; fits {told.need}." for told in advise(parse_job(manifest).spec)]
    text = "\n".join(lines) + "\n" + yaml.safe_dump(manifest, sort_keys=False, width=120)
    if args.out is None:
        sys.stdout.write(text)
        return exits.OK
    try:
        with Path(args.out).open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UserError(f"{args.out} exists", "remove it or give another --out") from None
    print(f"{args.out} written; next: lprl validate {args.out}, lprl plan {args.out}")
    return exits.OK


def _queued(manifest: dict[str, Any], queue: str | None, preparing: str | None) -> dict[str, Any]:
    """Have a manifest wait in these queues."""
    from lprl_api.kube_names import SUBDOMAIN_PATTERN

    if preparing is not None and queue is None:
        raise UserError("--preparing-queue: got no --queue", "give both: the training waits in a queue too, or neither")
    if queue is not None and not re.fullmatch(SUBDOMAIN_PATTERN, queue):
        raise UserError(f"--queue: got {queue!r}", "the name of a LocalQueue: small letters, digits, '-' and '.'")
    if queue is not None:
        manifest["metadata"]["labels"] = {names.LABEL_QUEUE: queue}
    if preparing is not None:
        manifest["spec"]["conversion"]["queueName"] = preparing
    return manifest
