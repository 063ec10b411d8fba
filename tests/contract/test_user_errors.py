"""A user's error on its whole way: raised in a pod, told by `kubectl get`, `describe` and `lprl run` in one line, and never retried.

The pods' commands run for real on a small job whose input is spoilt; the operator's machine gets their exit codes and messages.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.unit.lprl_operator.decide.steps import advance, condition, look, status
from tests.unit.lprl_operator.world import SETTINGS, World, manifest
from tests.unit.lprl_workload.launch.conftest import Inspected

from lprl_api.model.content_key import content_key
from lprl_api.model.formats import Fp8Block
from lprl_api.names import TERMINATION_MESSAGE_BYTES, ExitCode
from lprl_api.wire.runconfig import ConvertConfig
from lprl_cli.commands.run import finish
from lprl_cli.runfolder import RunFolder
from lprl_fixtures.runs import VOLUME, write_inputs
from lprl_operator.decide.observed import Exit
from lprl_workload.__main__ import main


class Lib:
    """What steps of a world need."""

    SETTINGS = SETTINGS


@dataclass(frozen=True)
class End:
    """How a pod ended."""

    code: int
    message: str


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("inputs")
    write_inputs(root, train=8, heldout=4)
    return root


@pytest.fixture
def job(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Inspected:
    shutil.copytree(inputs / VOLUME, tmp_path / VOLUME)
    monkeypatch.setenv("LPRL_VOLUMES_ROOT", str(tmp_path))
    monkeypatch.setenv("LPRL_TERMINATION_LOG", str(tmp_path / "termination"))
    return Inspected(tmp_path)


def ran(job: Inspected, line: list[str]) -> End:
    code = main(line)
    return End(code, job.log.read_text())


def train(job: Inspected, **changes: Any) -> End:
    run = {**job.run, "trained": job.preflight()["trained"], **changes}
    job.config.write_text(json.dumps(run))
    return ran(job, ["train", "--config", str(job.config), "--attempt", "1", "--in-process"])


def inspect(job: Inspected, **changes: Any) -> End:
    job.inspect(changes)
    return End(ExitCode.USER_ERROR, job.log.read_text())


def convert(job: Inspected, command: str = "convert", **changes: Any) -> End:
    wish = {"source": {"volume": VOLUME, "path": "model"}, "target": {"volume": VOLUME, "path": "fp8"}, "format": {"kind": "fp8-block"}}
    keys = {"fingerprint": PRINT, "contentKey": content_key(PRINT, Fp8Block()), "workers": 1, "threads": 1, "maxRelativeRmsError": None}
    job.config.write_text(json.dumps(ConvertConfig.model_validate({**wish, **keys}).document() | changes))
    return ran(job, [command, "--config", str(job.config), *(["--index", "0"] if command == "convert" else [])])


def spoilt(path: str, text: str | None, then: Callable[[Inspected], End]) -> Callable[[Inspected], End]:
    """The command after a file was replaced, or removed."""

    def run(job: Inspected) -> End:
        file = job.root / VOLUME / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        if text is not None:
            file.write_text(text)
        return then(job)

    return run


PRINT = "ab" * 32
"""A fingerprint of another source."""
OTHERS = json.dumps({"namespace": "blue", "name": "small", "uid": "u-1", "trained": None})
PLACES = {"directory": {"volume": VOLUME, "path": "runs/small"}, "loadFrom": {"volume": VOLUME, "path": "x"}}
LOAD = PLACES | {"everySteps": 2, "keep": 1, "exportFormats": []}
MEGATRON = {"trainer": "megatron", "rollout": "torch"}
NO_MODULE = {"type": "python", "function": "no:f"}
CASES: list[tuple[str, str, Callable[[Inspected], End], list[str]]] = [
    ("driver", "config", lambda job: train(job, sampling={"temprature": 1}), ["sampling.temprature", "one version of both"]),
    ("driver", "backend", lambda job: train(job, backends=MEGATRON), ["spec.backends.trainer: got megatron"]),
    ("driver", "model", spoilt("model/config.json", None, train), ["RunConfig.modelPath all:model: no config.json in it"]),
    ("driver", "tokenizer", spoilt("model/tokenizer.json", "{", train), ["model: no readable tokenizer"]),
    ("driver", "prompts", spoilt("data/train.jsonl", '{"prompt": "\\ud800"}\n', train), ["data/train.jsonl row 0"]),
    ("driver", "reward", lambda job: train(job, data={**job.run["data"], "reward": NO_MODULE}), ["PYTHONPATH"]),
    ("driver", "owner", spoilt("runs/small/owner.json", OTHERS, train), ["is that of job blue/small (uid u-1)", "another checkpoint.path"]),
    ("driver", "load", lambda job: train(job, checkpoint=LOAD), ["spec.checkpoint.loadFrom: no intact checkpoint"]),
    ("convert", "config", lambda job: convert(job, workers=0), ["workers", "one version of both"]),
    ("convert", "source", spoilt("model/config.json", None, convert), ["config.json"]),
    ("convert", "changed", convert, ["changed"]),
    ("convert", "weights", spoilt("model/model.safetensors", "x", convert), ["model.safetensors"]),
    ("finalise", "shards", lambda job: convert(job, "finalise"), []),
    ("inspect", "weights", spoilt("model/model.safetensors", "x", inspect), ["model.safetensors"]),
    ("inspect", "prompts", spoilt("data/train.jsonl", None, inspect), ["spec.data.prompts all:data/train.jsonl: no such file"]),
    ("inspect", "long", spoilt("data/train.jsonl", json.dumps({"prompt": "7" * 9000, "label": "7"}), inspect), ["data/train.jsonl row 0"]),
]  # fmt: skip


@pytest.mark.parametrize(("who", "run", "words"), [(c[0], *c[2:]) for c in CASES], ids=[f"{c[0]}-{c[1]}" for c in CASES])
def test_a_users_error_ends_the_job_at_once_in_one_line(
    job: Inspected, tmp_path: Path, capsys: pytest.CaptureFixture[str], who: str, run: Callable[[Inspected], End], words: list[str]
) -> None:
    end = run(job)
    assert end.code == ExitCode.USER_ERROR and len(end.message.encode()) <= TERMINATION_MESSAGE_BYTES
    assert "Traceback" not in capsys.readouterr().err
    world = World(manifest(failurePolicy={"maxRestarts": 9}))
    _end(world, who, end)
    failed = condition(world, "Failed")
    assert (status(world)["phase"], failed["status"], failed["reason"]) == ("Failed", "True", "UserError")
    assert status(world).get("restartsUsed", 0) == 0 and len(world.created_attempts) == (1 if who == "driver" else 0)
    told = [status(world)["message"], failed["message"], next(e.message for e in world.events if e.reason == "UserError")]
    assert told[0] == told[1] == told[2] and "\n" not in told[0]
    assert all(word in told[0] for word in words), told[0]
    assert "; " in told[0], "a remedy"
    _run_says_it(world, tmp_path, capsys, told[0])


def _end(world: World, who: str, end: End) -> None:
    """The pod of that role ends so, in a job that came as far as that."""
    if who == "driver":
        advance(world, Lib, "Running")
        head = world.head()
        assert head is not None
        world.exit_driver(head, end.code, end.message)
    else:
        if who != "inspect":
            advance(world, Lib, "Converting")
        look(world, Lib)
        name = next(n for n in world.jobs if ("inspect" in n) == (who == "inspect"))
        world.change_job(name, finished="Failed", reason="PodFailurePolicy", exits=(Exit(0, end.code, "Error", end.message),))
    look(world, Lib)


def _run_says_it(world: World, root: Path, capsys: pytest.CaptureFixture[str], message: str) -> None:
    """What `lprl run` prints at the end of such a life."""
    state = root / "state"
    state.mkdir()
    (state / "job.json").write_text(json.dumps(world.document))
    assert finish(RunFolder(state, root / "none", root), report=False) == 10
    error, fix = capsys.readouterr().err.splitlines()
    assert error == f"error: UserError: {message}"
    assert fix.startswith("  fix: correct what it names, then run the same command again")
