"""A reader with a checkout who pastes what a page shows."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from tests.cluster.furnish import remove
from tests.cluster.kube import Kube
from tests.pages import ROOT, Block, script

DEMO = Path("/var/lib/lprl-demo")
"""The folder on the node that examples/cluster/volumes.yaml names."""


def follow(kube: Kube, found: Iterable[Block], folder: Path, seconds: float) -> str:
    """Run blocks in a folder that has the checkout's files but takes what the commands write; return what they print."""
    for part in ("charts", "examples", "images", "crds"):
        if not (folder / part).exists():
            (folder / part).symlink_to(ROOT / part)
    return kube.paste(script(found, folder), folder, seconds)


def leave(kube: Kube) -> None:
    """Remove the first job's namespace and what it left on this machine, which is the node."""
    remove(kube, "lprl-demo")
    shutil.rmtree(DEMO, ignore_errors=True)
