"""`lprl run --sandbox`: which process stands for which pool, and what is refused before anything starts."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.unit.lprl_cli.test_commands import VALID

from lprl_api.errors import UserError
from lprl_cli import exits, sandboxes
from lprl_cli.main import main
from lprl_operator.places.local.environment import PodContext, resolve
from lprl_operator.places.local.folders import Folders

TOOL = {"name": "sum", "sandbox": {"warmPool": "python"}, "description": "Adds.", "parameters": {"type": "object"}}
JOB: dict[str, Any] = {**VALID, "spec": {**VALID["spec"], "episode": {"type": "tools", "tools": [TOOL]}}}


def test_a_pool_gets_its_command_and_the_folder_it_was_said_in() -> None:
    found = sandboxes.commands_of(["python=python tool.py --port={port} a=b"], JOB)
    assert found == {"python": {"command": "python tool.py --port={port} a=b", "folder": os.getcwd()}}
    assert sandboxes.commands_of([], VALID) == {}


@pytest.mark.parametrize("option", ["python", "=x {port}", "python=tool.py", "python='{port}"])
def test_what_is_no_pool_and_command_is_refused(option: str) -> None:
    with pytest.raises(UserError, match=r"needs POOL=COMMAND with \{port\} in it"):
        sandboxes.commands_of([option], JOB)


def test_a_command_that_no_tool_asks_for_is_refused_with_the_pools_there_are() -> None:
    with pytest.raises(UserError, match=r"--sandbox pyhton=\.\.\.: no tool of the job names that pool") as error:
        sandboxes.commands_of(["python=x {port}", "pyhton=x {port}"], JOB)
    assert error.value.remedy == "pools it names: python"


def test_a_job_with_a_sandbox_is_refused_without_the_flag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(JOB))
    for name in ("toy", "train.jsonl"):
        (tmp_path / "volumes" / "models" / name).mkdir(parents=True)
    line = ["run", str(tmp_path / "job.yaml"), "--state-dir", str(tmp_path / "run"), "--volumes", str(tmp_path / "volumes")]
    assert main(line) == exits.USER_ERROR
    told = capsys.readouterr().err
    assert "spec.episode.tools[0].sandbox.warmPool: there is no SandboxWarmPool python on this machine" in told
    assert "--sandbox 'python=COMMAND ... {port}'" in told and not (tmp_path / "run" / "job.json").exists()


def test_the_driver_is_told_of_this_runs_commands_only(tmp_path: Path) -> None:
    folders = Folders.of(tmp_path / "run", tmp_path)
    folders.state.mkdir()

    def told() -> str | None:
        context = PodContext("p", "u", "n", {}, {}, tmp_path, {})
        return resolve({}, {"name": "driver", "command": ["python"]}, context, folders).env.get("LPRL_SANDBOX_COMMANDS")

    commands = sandboxes.commands_of(["python=x {port}"], JOB)
    sandboxes.write(folders.sandboxes, commands)
    assert json.loads(told() or "") == commands
    sandboxes.write(folders.sandboxes, {})
    assert told() is None
