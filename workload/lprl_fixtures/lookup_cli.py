"""Command line of the lookup task: its inputs, and its tool as a process."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lprl_fixtures.lookup import SECRET, write_lookup
from lprl_fixtures.lookup_server import PORT, LookupServer


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    p = argparse.ArgumentParser(prog="python -m lprl_fixtures", description="A task that needs a tool.")
    commands = p.add_subparsers(dest="command", required=True)
    inputs = commands.add_parser("lookup", help="write a model that can call the tool, and keys to ask for")
    inputs.add_argument("--model", type=Path, help="model folder; taught by supervised steps, half a minute")
    inputs.add_argument("--data", type=Path, help="folder of train.jsonl, heldout.jsonl and the secret")
    inputs.add_argument("--seed", type=int, default=0, help="of the model and the keys; the secret is new each time (default 0)")
    inputs.add_argument("--train", type=int, default=4096, help="training keys (default 4096)")
    inputs.add_argument("--heldout", type=int, default=256, help="held-out keys, none of which is trained on (default 256)")
    server = commands.add_parser("lookup-server", help="answer calls on 127.0.0.1 until interrupted")
    server.add_argument("data", type=Path, help=f"folder with {SECRET}, which `lookup --data` wrote")
    server.add_argument("--port", type=int, default=PORT, help=f"0: any free one (default {PORT})")
    return p


def main(argv: Sequence[str]) -> int:
    """Write what the arguments ask for, or serve; returns the exit status."""
    p = parser()
    args = p.parse_args(argv)
    if args.command == "lookup-server":
        return _serve(args)
    if args.model is None and args.data is None:
        p.error("give --model, --data or both")
    if args.data is not None:
        write_lookup(args.data, args.seed, args.train, args.heldout)
        sys.stdout.write(f"{args.data}: {args.train} training and {args.heldout} held-out keys, and a new secret\n")
    if args.model is not None:
        import torch  # which the server does without

        from lprl_fixtures.lookup_model import write_lookup_model

        torch.set_num_threads(1)  # more are no faster at this size
        loss = write_lookup_model(args.model, args.seed)
        sys.stdout.write(f"{args.model}: a model that can write calls; loss {loss:.2f} nats a token on played conversations\n")
    return 0


def _serve(args: argparse.Namespace) -> int:
    if not (args.data / SECRET).is_file():
        sys.stderr.write(f"error: {args.data / SECRET} is not there\n  fix: python -m lprl_fixtures lookup --data {args.data}\n")
        return 3
    with LookupServer(args.data, args.port) as server:
        sys.stdout.write(f"answering on {server.url}\n")
        sys.stdout.flush()
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            sys.stdout.write(f"{server.calls} calls answered\n")
    return 0
