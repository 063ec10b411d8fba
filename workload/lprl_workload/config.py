"""RunConfig and the environment of a process -> frozen values. No defaults for the run live here: the operator wrote them all."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from lprl_api.base import Contract
from lprl_api.errors import UserError
from lprl_api.names import DEFAULT_VOLUMES_ROOT, ENV_LIVE_SETTINGS, ENV_VOLUMES_ROOT
from lprl_api.spec.sources import DataFile, VolumePath
from lprl_api.wire.runconfig import LiveSettings, RunConfig

MAX_CONFIG_BYTES = 4 * 1024 * 1024
"""A ConfigMap holds at most 1 MiB; anything larger is not one of ours."""

_C = TypeVar("_C", bound=Contract)


def volumes_root() -> Path:
    """Return the folder under which every volume is mounted by its name (LPRL_VOLUMES_ROOT, default /volumes)."""
    return Path(os.environ.get(ENV_VOLUMES_ROOT, DEFAULT_VOLUMES_ROOT))


def resolve(path: VolumePath | DataFile) -> Path:
    """Return the absolute path of a file or folder inside a volume; symbolic links are not followed."""
    return volumes_root() / path.volume / path.path


@dataclass(frozen=True, slots=True)
class ResolvedPaths:
    """The run's folders and files on this machine."""

    model: Path
    """BF16 Hugging Face folder the trainer loads."""
    reference: Path
    rollout: Path
    """Folder the engine loads: config.json, tokenizer and served weights."""
    run: Path
    """The run folder: checkpoints, metrics, exports."""
    prompts: Path
    evaluation_prompts: Path | None
    load_from: Path | None

    @classmethod
    def of(cls, run: RunConfig) -> "ResolvedPaths":
        """Resolve every path of `run` under the volumes root of this process."""
        return cls(
            model=resolve(run.model_path),
            reference=resolve(run.reference_path),
            rollout=resolve(run.rollout_path),
            run=resolve(run.checkpoint.directory),
            prompts=resolve(run.data.prompts),
            evaluation_prompts=resolve(run.evaluation.prompts) if run.evaluation else None,
            load_from=resolve(run.checkpoint.load_from) if run.checkpoint.load_from else None,
        )


@dataclass(frozen=True, slots=True)
class RankInfo:
    """One process of a group; `world` 1 needs no process group and no rendezvous."""

    rank: int
    world: int
    device: str
    """Torch device: cpu, cuda:0, ..."""
    master_addr: str = "127.0.0.1"
    master_port: int = 0
    store: Any = field(default=None, compare=False)
    """The meeting point itself, where this process opened it already (rank 0); never leaves the process."""


def load_contract(path: Path, model: type[_C]) -> _C:
    """Parse a JSON document the operator wrote.

    Raises:
        UserError: the file is missing, too large, no JSON, or does not fit `model` (every wrong field is named).

    """
    if not path.is_file():
        raise UserError(f"{path}: no such file", "pass --config with the JSON file the operator renders")
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise UserError(f"{path}: {path.stat().st_size} bytes, at most {MAX_CONFIG_BYTES} fit a configuration")
    try:
        return model.model_validate_json(path.read_bytes())
    except ValidationError as error:
        found = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'document'}: {e['msg']}" for e in error.errors())
        raise UserError(
            f"{path} is no {model.__name__}: {found}", "operator and workload image are of different versions: use one version of both"
        ) from error


def load_run_config(path: Path) -> RunConfig:
    """Parse a RunConfig document; raises UserError naming every field that does not fit."""
    return load_contract(path, RunConfig)


def of_this_attempt(run: RunConfig) -> RunConfig:
    """Put in what this attempt was told beside its RunConfig (LPRL_LIVE_SETTINGS, nothing by default); raises UserError."""
    text = os.environ.get(ENV_LIVE_SETTINGS)
    if not text:
        return run
    try:
        return LiveSettings.model_validate_json(text).put_into(run)
    except ValidationError as error:
        told = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'document'}: {e['msg']}" for e in error.errors())
        remedy = "operator and workload image are of different versions: use one version of both"
        raise UserError(f"{ENV_LIVE_SETTINGS}: {told}", remedy) from error
