"""A small job on disk, as its inspection sees it."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from lprl_api.derived.trained import trained_document
from lprl_api.model.model_shape import ModelShape
from lprl_api.names import ExitCode
from lprl_api.rules.parse import parse_job
from lprl_api.wire.runconfig import InspectConfig, Preflight
from lprl_fixtures.runs import VOLUME, merged, run_config, write_inputs
from lprl_workload.__main__ import main
from lprl_workload.checkpoint.store import CheckpointStore
from lprl_workload.io.parts import write_part


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model and task, made once."""
    root = tmp_path_factory.mktemp("inputs")
    write_inputs(root, train=8, heldout=4)
    return root


SOURCE = {"source": {"volume": VOLUME, "path": "model"}}
UID = "uid-2"
EXAMPLE = Path(__file__).parents[4] / "examples" / "00-cpu-quickstart.yaml"
TRAINED = trained_document(parse_job(yaml.safe_load(EXAMPLE.read_text())).spec)


class Inspected:
    """One job and the pod that inspects its source."""

    def __init__(self, root: Path) -> None:
        self.root, self.config, self.log = root, root / "inspect.json", root / "termination"
        self.run_folder = root / VOLUME / "runs" / "small"
        self.run = run_config(root).document()

    def preflight(self, changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
        run = self.run
        parts = {name: run[name] for name in ("namespace", "data", "sampling", "evaluation", "rollout", "checkpoint")}
        parts |= {"jobName": "small", "jobUid": UID, "trained": TRAINED, "seed": 0, "backends": {}, "importsReward": True}
        return Preflight.model_validate(merged(parts, changes or {})).document()

    def inspect(self, changes: Mapping[str, Any] | None = None, source: Mapping[str, Any] | None = None) -> tuple[int, str]:
        """Run the pod; returns its exit code and termination message."""
        document = {"source": source or SOURCE["source"], "preflight": self.preflight(changes)}
        self.config.write_text(json.dumps(InspectConfig.model_validate(document).document()))
        code = main(["inspect", "--config", str(self.config)])
        said = self.log.read_text()
        return code, said if code == ExitCode.OK else json.loads(said)["message"]


@pytest.fixture
def job(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Inspected:
    """Its inputs may be spoilt: they are copies."""
    shutil.copytree(inputs / VOLUME, tmp_path / VOLUME)
    monkeypatch.setenv("LPRL_VOLUMES_ROOT", str(tmp_path))
    monkeypatch.setenv("LPRL_TERMINATION_LOG", str(tmp_path / "termination"))
    return Inspected(tmp_path)


@pytest.fixture
def checkpoint() -> Callable[..., Path]:
    """checkpoint(folder, step, attempt, owner, shape): what a job left in its run folder."""

    def make(folder: Path, step: int, attempt: int = 1, owner: Mapping[str, Any] | None = None, shape: ModelShape | None = None) -> Path:
        store = CheckpointStore(folder, attempt, 3)
        store.take_over()
        store.publish(step, [write_part(store.begin(step) / "state.json", b"{}")], shape=shape)
        if owner is not None:
            (folder / "owner.json").write_text(json.dumps(owner))
        return store.folder(step)

    return make
