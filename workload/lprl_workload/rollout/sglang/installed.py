"""Where SGLang is: in this environment, or in one of its own beside it. It is never imported here: its own processes do that."""

import importlib.util
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from lprl_api.errors import UserError
from lprl_workload.rollout.sglang.arguments import known_flags

ENV_PYTHON = "LPRL_SGLANG_PYTHON"
"""Python of the environment that holds SGLang, where that is not the one the workload runs in; it must see lprl_workload as well."""
OF_IMAGE = Path("/opt/sglang/bin/python")
"""Where the GPU image has it."""


@dataclass(frozen=True, slots=True)
class Installed:
    """One SGLang."""

    python: Path
    package: Path

    def flags(self) -> frozenset[str]:
        """Return the arguments its servers take."""
        files = [self.package / "srt" / "server_args.py", *sorted((self.package / "srt" / "arg_groups" / "fields").glob("*.py"))]
        return known_flags(path.read_text() for path in files if path.is_file())


def find_installed() -> Installed | None:
    """Return the SGLang that servers are started with, None where there is none."""
    named = os.environ.get(ENV_PYTHON)
    if named:
        return _beside(Path(named))
    here = importlib.util.find_spec("sglang")
    if here is not None and here.submodule_search_locations:
        return Installed(Path(sys.executable), Path(next(iter(here.submodule_search_locations))))
    return _beside(OF_IMAGE)


def _beside(python: Path) -> Installed | None:
    packages = sorted(python.parent.parent.glob("lib/python*/site-packages/sglang")) if python.is_file() else []
    return Installed(python, packages[0]) if packages else None


def installed() -> Installed:
    """Return the SGLang that servers are started with; raises UserError where there is none."""
    found = find_installed()
    if found is None:
        where = f" ({ENV_PYTHON} is {os.environ[ENV_PYTHON]})" if os.environ.get(ENV_PYTHON) else ""
        raise UserError(f"backends.rollout: got sglang, which this environment does not hold{where}", "use an image with SGLang, or torch")
    return found
