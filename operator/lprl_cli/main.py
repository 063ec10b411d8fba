"""`lprl` and `kubectl lprl`: one file per command, imported when it is called, so that start-up stays cheap."""

import argparse
import errno
import importlib
import os
import sys
from collections.abc import Callable, Sequence

from lprl_cli import exits
from lprl_cli.cluster.place import called_as_kubectl, command_first

COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("demo", "train a small model by RL on this machine, end to end, in minutes"),
    "run": ("run", "run a job on this machine: the same objects and state machine as on Kubernetes"),
    "status": ("status", "show local runs, or jobs in a cluster, with a live table while they run"),
    "get": ("status", "the same as status"),
    "logs": ("logs", "print what a local run's processes, or the right container in a cluster, wrote"),
    "metrics": ("metrics", "print the newest numbers of a local run or of a job in a cluster"),
    "suspend": ("control", "ask a local run, or a job in a cluster, to checkpoint and stop"),
    "resume": ("control", "clear a suspension: a job in a cluster goes on, a local run with the next `lprl run`"),
    "stop": ("control", "end a local run now; `lprl run` goes on from its last checkpoint"),
    "report": ("report", "make one HTML page of a run, or compare several"),
    "init": ("init", "write the manifest of a preset"),
    "validate": ("validate", "check manifests: every error at once, with file and line"),
    "plan": ("plan", "show roles, ranks and memory per GPU, and why it fits or what would"),
    "render": ("render", "print the Kubernetes objects a job becomes"),
    "inspect": ("workload", "read a model folder: shape, formats, fingerprint"),
    "convert": ("workload", "convert a model folder to FP8 or INT4, or back to BF16"),
    "verify": ("workload", "check a converted folder: digests, error per tensor, what became of the model's answers"),
    "export": ("workload", "turn a training checkpoint into a Hugging Face folder in BF16, FP8 or INT4"),
    "crd": ("crd", "print the CustomResourceDefinition"),
    "doctor": ("doctor", "check what this machine has for a local run"),
}

PASSED_THROUGH = ("convert", "verify", "export")
"""Commands whose options are the workload's own; it explains them itself."""

EXAMPLES = """examples:
  lprl demo                                     the whole path in minutes, no GPU, no cluster
  lprl init qwen3-30b-a3b-int4 > job.yaml       start from a published topology
  lprl validate job.yaml && lprl plan job.yaml  what is wrong with it, then what it needs
  lprl run job.yaml                             run it here, with a live table
  lprl report runs/NAME                         one page: curves, mismatch, plan, timeline, errors
  lprl render job.yaml                          look at what the operator makes of it

in a cluster (the same program as a kubectl plugin; status, get, logs, metrics, suspend and resume are about local runs when called
as lprl without -n, -A, --context or --kubeconfig, and about jobs in the cluster otherwise):
  kubectl lprl status NAME --watch              a live table until the job ends; the exit code says how
  kubectl lprl logs NAME -f                     the driver, or the pod of the phase the job is in
"""


def build_parser(chosen: str | None) -> argparse.ArgumentParser:
    """Return the parser; only the chosen command's module is imported and adds its own arguments."""
    parser = argparse.ArgumentParser(
        prog="kubectl lprl" if called_as_kubectl() else "lprl",
        description="Low-precision reinforcement learning of language models on Kubernetes, and on this machine.",
        epilog=f"{EXAMPLES}\n{exits.TABLE}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands (lprl COMMAND --help explains one)")
    for name, (module, summary) in COMMANDS.items():
        if name == chosen:
            command = importlib.import_module(f"lprl_cli.commands.{module}")
            sub = commands.add_parser(
                name,
                help=summary,
                description=f"{summary[0].upper()}{summary[1:]}.",
                epilog=command.epilog(name),
                formatter_class=argparse.RawDescriptionHelpFormatter,
            )
            command.add_arguments(sub, name)
            sub.set_defaults(run=command.run)
        else:
            commands.add_parser(name, help=summary, add_help=False)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code. A user's mistake is one line and a remedy, never a traceback."""
    arguments = command_first(sys.argv[1:] if argv is None else argv)
    chosen = next((word for word in arguments if not word.startswith("-")), None)
    if chosen in PASSED_THROUGH:
        from lprl_cli.commands.verify import verify
        from lprl_cli.commands.workload import pass_through

        own = arguments[arguments.index(chosen) + 1 :]
        return guarded(lambda: verify(own) if chosen == "verify" else pass_through(str(chosen), own))
    parser = build_parser(chosen)
    args = parser.parse_args(arguments)
    if args.version:
        from importlib.metadata import version

        print(f"lprl {version('lprl')}")
        return exits.OK
    if args.command is None:
        parser.print_help()
        return exits.USAGE
    return guarded(lambda: int(args.run(args)))


PATH_REMEDIES = {
    errno.ENOENT: "check the path; the folders on the way must exist",
    errno.ENOTDIR: "a file stands where a folder must be; give another path",
    errno.EISDIR: "a folder stands where a file must be; give another path",
    errno.EEXIST: "remove it, or give another path",
    errno.EACCES: "change its permissions, or give another path",
    errno.EPERM: "change its permissions, or give another path",
    errno.EROFS: "give a path that can be written",
    errno.ENAMETOOLONG: "give a shorter path",
    errno.ENOSPC: "free space there, or give another path",
}


def guarded(command: Callable[[], int]) -> int:
    """Run a command and turn errors into exit codes."""
    from lprl_api.errors import StorageFullError, UserError

    try:
        return command()
    except StorageFullError as error:
        return _say(error.message, error.remedy, exits.STORAGE_FULL)
    except UserError as error:
        return _say(error.message, error.remedy, exits.USER_ERROR)
    except BrokenPipeError:
        # The reader (head, less) has seen enough; Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exits.OK
    except KeyboardInterrupt:
        return exits.INTERRUPTED
    except Exception as error:
        if os.environ.get("LPRL_DEBUG"):
            raise
        if isinstance(error, OSError) and error.filename is not None and error.errno in PATH_REMEDIES:
            code = exits.STORAGE_FULL if error.errno == errno.ENOSPC else exits.USER_ERROR
            return _say(f"{error.filename}: {error.strerror}", PATH_REMEDIES[error.errno], code)
        return _say(f"unexpected {type(error).__name__}: {error}", "set LPRL_DEBUG=1 for the traceback, and report it", exits.UNEXPECTED)


def _say(cause: str, remedy: str, code: int) -> int:
    print(f"error: {cause}", file=sys.stderr)
    if remedy:
        print(f"  fix: {remedy}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
