"""Here or in a cluster: `lprl` is about local runs, `kubectl lprl` about jobs in a cluster, and a cluster option says so for both."""

import argparse
import os
import sys
from collections.abc import Sequence

from lprl_api.errors import UserError
from lprl_cli.runfolder import NoRun, RunFolder, find

WHICH = """Given any of these, or called as `kubectl lprl`, NAME is a job in the cluster.
Without them, `lprl` takes a local run: its state folder (runs/NAME), or its name below ./runs."""
TAKING_VALUES = ("-n", "--namespace", "--context", "--kubeconfig")


def called_as_kubectl() -> bool:
    """Whether kubectl found us as its plugin, or someone ran `kubectl-lprl`."""
    return os.path.basename(sys.argv[0]).startswith("kubectl")


def add_arguments(parser: argparse.ArgumentParser, everywhere: bool = False) -> None:
    """Add the options that name a cluster."""
    group = parser.add_argument_group("jobs in a cluster", WHICH)
    group.add_argument("--namespace", "-n", metavar="NS", help="namespace of the job; default: the context's")
    group.add_argument("--context", metavar="NAME", help="context of the kubeconfig; default: the current one")
    group.add_argument("--kubeconfig", metavar="FILE", help="default: $KUBECONFIG, else ~/.kube/config")
    if everywhere:
        group.add_argument("--all-namespaces", "-A", action="store_true", help="every namespace")


def in_cluster(args: argparse.Namespace) -> bool:
    """Whether a command is about the cluster."""
    return called_as_kubectl() or named(args)


def named(args: argparse.Namespace) -> bool:
    """Whether an option names a cluster."""
    return any((args.namespace, args.context, args.kubeconfig, getattr(args, "all_namespaces", False)))


def local(text: str) -> RunFolder:
    """Return a local run; when there is none, also say how a job in a cluster is named."""
    try:
        return find(text)
    except NoRun as error:
        raise NoRun(error.message, f"{error.remedy}; a job in a cluster: add -n NAMESPACE, or use kubectl lprl") from None


def only_in_cluster(args: argparse.Namespace, *options: str) -> None:
    """Refuse options that a local run does not have."""
    given = [name for name in options if getattr(args, name.lstrip("-").replace("-", "_"))]
    if given:
        raise UserError(f"{', '.join(given)}: for jobs in a cluster", "add -n NAMESPACE, or use kubectl lprl")


def command_first(arguments: Sequence[str]) -> list[str]:
    """Move cluster options in front of the command behind it: `kubectl lprl -n team status` is how people write it."""
    at = 0
    while at < len(arguments):
        word = arguments[at]
        if word in TAKING_VALUES and at + 1 < len(arguments):
            at += 2
        elif word.startswith(tuple(f"{name}=" for name in TAKING_VALUES if name.startswith("--"))) or word in ("-A", "--all-namespaces"):
            at += 1
        else:
            break
    return [*arguments[at : at + 1], *arguments[:at], *arguments[at + 1 :]]
