"""Command line of the real model and its questions."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lprl_api.errors import UserError
from lprl_fixtures.questions import KINDS, write_questions
from lprl_fixtures.smollm2 import LICENSE, ask, write_smollm2


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    p = argparse.ArgumentParser(prog="python -m lprl_fixtures", description=f"{LICENSE} And questions it can learn to answer.")
    commands = p.add_subparsers(dest="command", required=True)
    model = commands.add_parser("smollm2", help="write the model, then ask it three questions", description=LICENSE)
    model.add_argument("folder", type=Path, help="folder to make; it must be empty or not be there")
    model.add_argument("--no-questions", action="store_true", help="do not ask it anything (asking takes half a minute on two cores)")
    rows = "; ".join(f"{name} {kind.untrained:.0%}" for name, kind in KINDS.items())
    text = f"Write train.jsonl and heldout.jsonl. The untrained model is right by itself in this share of its samples: {rows}.".replace(
        "%", "%%"
    )
    questions = commands.add_parser("questions", help="write questions with answers", description=text)
    questions.add_argument("folder", type=Path, help="folder to make")
    questions.add_argument("--kind", choices=tuple(KINDS), default="add1", help="default add1")
    questions.add_argument("--seed", type=int, default=0)
    questions.add_argument("--train", type=int, default=4096, help="training rows; questions repeat when there are fewer (default 4096)")
    questions.add_argument("--heldout", type=int, default=20, help="held-out rows, none of which is trained on (default 20)")
    return p


def main(argv: Sequence[str]) -> int:
    """Write what the arguments ask for; returns the exit status (3 for a wrong wish)."""
    args = parser().parse_args(argv)
    try:
        if args.folder.exists() and any(args.folder.iterdir()):
            raise UserError(f"{args.folder}: not empty", "name a folder that is not there yet")
        args.folder.mkdir(parents=True, exist_ok=True)
        return _model(args) if args.command == "smollm2" else _questions(args)
    except UserError as error:
        sys.stderr.write(f"error: {error.message}\n  fix: {error.remedy}\n")
        return 3


def _model(args: argparse.Namespace) -> int:
    sys.stdout.write(f"{args.folder}: {write_smollm2(args.folder)} bytes of weights. {LICENSE}\n")
    if args.no_questions:
        return 0
    answers = ask(args.folder)
    for answer in answers:
        sys.stdout.write(f"{'ok  ' if answer.right else 'MISS'} {answer.question} -> {answer.said.strip()!r}\n")
    return 0 if all(answer.right for answer in answers) else 1


def _questions(args: argparse.Namespace) -> int:
    write_questions(args.folder, args.kind, args.seed, args.train, args.heldout)
    sys.stdout.write(f"{args.folder}: {args.train} training and {args.heldout} held-out questions of kind {args.kind}\n")
    return 0
