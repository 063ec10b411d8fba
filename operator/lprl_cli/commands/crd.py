"""`lprl crd`: the CustomResourceDefinition, generated from the contract."""

import argparse
import subprocess
import sys


def epilog(_: str) -> str:
    """Examples for --help."""
    return "examples:\n  lprl crd | kubectl apply --server-side -f -"


def add_arguments(parser: argparse.ArgumentParser, _: str) -> None:
    """No arguments."""


def run(_: argparse.Namespace) -> int:
    """Print the document."""
    return subprocess.run([sys.executable, "-m", "lprl_api.crd"], check=False).returncode
