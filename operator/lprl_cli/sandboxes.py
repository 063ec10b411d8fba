"""`lprl run --sandbox POOL=COMMAND`: the process that stands for a sandbox of a warm pool on this machine."""

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lprl_api.errors import UserError
from lprl_api.rules.parse import parse_job

HELP = (
    "POOL=COMMAND with {port} in it: run this process for every episode that calls a tool with sandbox.warmPool POOL "
    "(repeatable; it is no isolation: docs/rollouts.md)"
)


def commands_of(options: Sequence[str], document: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Return command and folder by warm pool. Raises UserError for a pool without a command, and for a command no tool asks for."""
    found: dict[str, dict[str, str]] = {}
    for option in options:
        pool, equals, command = option.partition("=")
        if not (pool and equals and "{port}" in command and _words(command)):
            raise UserError(
                f"--sandbox {option!r}: needs POOL=COMMAND with {{port}} in it", "such as --sandbox 'python=python tool.py {port}'"
            )
        found[pool] = {"command": command, "folder": os.getcwd()}
    tools = parse_job(document).spec.episode.tools
    wanted = {tool.sandbox.warm_pool: place for place, tool in enumerate(tools) if tool.sandbox is not None}
    for pool, place in wanted.items():
        if pool not in found:
            what = f"spec.episode.tools[{place}].sandbox.warmPool: there is no SandboxWarmPool {pool} on this machine"
            raise UserError(what, f"--sandbox '{pool}=COMMAND ... {{port}}' runs the tool as a process for every episode")
    for pool in found.keys() - wanted.keys():
        named = ", ".join(sorted(wanted)) or "none"
        raise UserError(f"--sandbox {pool}=...: no tool of the job names that pool", f"pools it names: {named}")
    return found


def write(path: Path, commands: Mapping[str, Mapping[str, str]]) -> None:
    """Write them for this run's driver; nothing where there are none."""
    path.unlink(missing_ok=True)
    if commands:
        path.write_text(json.dumps(commands))


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError:
        return []
