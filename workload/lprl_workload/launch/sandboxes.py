"""A run's sandboxes: which source its driver has."""

import json
import os
from typing import Any

from lprl_api import names
from lprl_api.errors import UserError
from lprl_api.wire.runconfig import RunConfig
from lprl_workload.agent.sandbox_claims import Api, Claims, Owner
from lprl_workload.agent.sandbox_clerk import Clerk, Source
from lprl_workload.agent.sandbox_processes import Processes
from lprl_workload.metrics.configmaps import SERVICE_ACCOUNT


def has_sandboxes(run: RunConfig) -> bool:
    """Return whether a tool of the run lives in a sandbox."""
    return any(tool.sandbox is not None for tool in run.episode.tools)


def open_clerk(run: RunConfig) -> Clerk | None:
    """Return who serves the run's engines, None where no tool has a sandbox. Leftovers of earlier attempts are ended.

    Raises UserError where sandboxes can come from nowhere.
    """
    tools = {place: tool for place, tool in enumerate(run.episode.tools) if tool.sandbox is not None}
    return Clerk(tools, _source(run)) if tools else None


def _source(run: RunConfig) -> Source:
    commands = os.environ.get(names.ENV_SANDBOX_COMMANDS)
    if commands:
        return _processes(run, json.loads(commands))
    pod, uid = os.environ.get(names.ENV_POD_NAME), os.environ.get(names.ENV_POD_UID)
    if pod and uid and os.environ.get("KUBERNETES_SERVICE_HOST") and (SERVICE_ACCOUNT / "token").exists():
        attempt = int(os.environ.get(names.ENV_ATTEMPT) or 1)
        return Claims(Api.of_pod(SERVICE_ACCOUNT), run.namespace, Owner(run.job_name, attempt, pod, uid))
    return _processes(run, {})


def _processes(run: RunConfig, commands: dict[str, Any]) -> Processes:
    for place, tool in enumerate(run.episode.tools):
        if tool.sandbox is not None and tool.sandbox.warm_pool not in commands:
            pool = tool.sandbox.warm_pool
            raise UserError(
                f"episode.tools[{place}].sandbox: there is no SandboxWarmPool {pool} outside a cluster",
                f"lprl run FILE --sandbox '{pool}=COMMAND ... {{port}}' runs the tool as a process",
            )
    return Processes(commands)
