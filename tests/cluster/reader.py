"""A reader with a checkout who pastes what a page shows."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from tests.cluster.furnish import remove
from tests.cluster.kube import Kube
from tests.pages import ROOT, Block, script

DEMO = Path("/var/lib/lprl-demo")
"""The folder on the node that examples/cluster/volumes.yaml names."""


def follow(kube: Kube, found: Iterable[Block], folder: Path, seconds: float, last_as: str = "") -> str:
    """Run blocks in a folder that has the checkout's files but takes what the commands write; return what they print.

    The last command is run with the rights of user `last_as`, where that is named.
    """
    for part in ("charts", "examples", "images", "crds"):
        if not (folder / part).exists():
            (folder / part).symlink_to(ROOT / part)
    text = script(found, folder)
    if last_as:  # helm takes the user from its environment
        *before, last = text.rstrip().split("\n")
        text = "\n".join([*before, f"export HELM_KUBEASUSER={last_as}", last])
    return kube.paste(text, folder, seconds)


def leave(kube: Kube) -> None:
    """Remove the first job's namespace and what it left on this machine, which is the node."""
    remove(kube, "lprl-demo")
    shutil.rmtree(DEMO, ignore_errors=True)
