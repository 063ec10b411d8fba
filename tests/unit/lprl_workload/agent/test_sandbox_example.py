"""The example with a sandbox: the command its head line names is a tool that its episodes can call."""

import re
from pathlib import Path

import yaml
from tests.pages import ROOT
from tests.unit.lprl_workload.agent.sandboxes import tools_of
from tests.unit.lprl_workload.agent.test_sandbox_claims import run

from lprl_api.rules.parse import parse_job
from lprl_cli.sandboxes import commands_of
from lprl_fixtures.lookup import held, read_secret, write_lookup
from lprl_workload.agent.sandbox_processes import Processes

EXAMPLE = ROOT / "examples/41-sandbox-tool.yaml"


def test_the_examples_tool_runs_as_the_process_it_names(tmp_path: Path) -> None:
    text = EXAMPLE.read_text()
    option = re.search(r"--sandbox '(.+)'$", text, re.M)
    assert option is not None and option[1] in (ROOT / "docs/rollouts.md").read_text()
    write_lookup(tmp_path / "volumes/data/lookup", train=8, heldout=4)
    commands = commands_of([option[1]], yaml.safe_load(text))
    source = Processes({pool: {**told, "folder": str(tmp_path)} for pool, told in commands.items()})
    tool = parse_job(yaml.safe_load(text)).spec.episode.tools[0]
    assert tool.sandbox is not None
    patient = tool.model_copy(update={"timeout_seconds": 120.0, "sandbox": tool.sandbox.model_copy(update={"claim_seconds": 120.0})})
    with tools_of(source, patient) as tools:
        answer = run(tools.call("lookup", key="kqz"))
    assert (answer.how, answer.text) == ("ok", held(read_secret(tmp_path / "volumes/data/lookup"), "kqz"))
