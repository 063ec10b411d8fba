"""What a job needs besides its model, checked by the inspection: backends, prompts, reward, checkpoints.

Each check raises UserError. The driver makes them again: what was there may be gone when the cluster is ready.
"""

import logging
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lprl_api.checkpoint_ref import CheckpointRef
from lprl_api.derived.effective import context_length, evaluation_sampling
from lprl_api.derived.run_folder import Owner, content_of, step_name
from lprl_api.errors import UserError
from lprl_api.model.model_shape import EarlierRun, ModelShape
from lprl_api.spec.algorithm import Data, Sampling
from lprl_api.wire.runconfig import Preflight
from lprl_workload.agent.named import check_episode, load_function, schemas_of
from lprl_workload.checkpoint.owner import checked_content
from lprl_workload.checkpoint.store import intact_checkpoint
from lprl_workload.config import resolve
from lprl_workload.convert.disk import existing_parent
from lprl_workload.folder.config import read_shape
from lprl_workload.launch.backends import check_accelerator, check_backends, check_fields
from lprl_workload.process.termination import MISSING_ERRNOS, PLACE_ERRNOS
from lprl_workload.rollout.dataset import PromptDataset
from lprl_workload.rollout.reward import make_scorer
from lprl_workload.rollout.tokens import load_tokenizer

log = logging.getLogger(__name__)
Check = Callable[[], object]
WHOLE_BYTES = 64 * 1024 * 1024
"""Prompt files up to this size are read whole; of larger ones the first ROWS rows, so that the pod stays small and takes seconds."""
ROWS = 20_000
GROUP_BYTES = 256 * 1024 * 1024
"""Largest parquet row group read: a group is read whole."""
MODEL = "model"
SHAPE_FIELDS = ("layers", "hidden", "heads", "kv_heads", "head_dim", "ffn", "vocab", "moe", "mla")
"""Numbers a checkpoint's model has in common with the one that is to go on from it."""


def places(config: Preflight) -> tuple[Check, ...]:
    """Checks that need no model: before a download of hours."""
    return (
        partial(_backends, config),
        partial(_reward, config),
        partial(_episode, config),
        partial(_prompt_files, config),
        partial(_run_folder, config),
        partial(_load_from, config),
    )


def inputs(config: Preflight, model: Path, shape: ModelShape | None) -> tuple[Check, ...]:
    """Checks of the prompts as the model's tokenizer sees them; of their lengths where the model's context is known."""
    return (partial(_prompts, config, model, shape),)


def owner(config: Preflight) -> Owner:
    """Return the job as its run folder would note it."""
    return Owner(namespace=config.namespace, name=config.job_name, uid=config.job_uid, trained=config.trained)


def earlier_run(config: Preflight) -> EarlierRun | None:
    """Return what the run folder holds of an earlier job of this name (or of this one, should its status have been lost)."""
    found = content_of(resolve(config.checkpoint.directory))
    if found.step is None and not found.fence:
        return None
    path = f"{config.checkpoint.directory}/{step_name(found.step or 0)}"
    checkpoint = CheckpointRef(step=found.step, path=path) if found.step is not None else None
    return EarlierRun(uid=found.owner.uid if found.owner is not None else None, attempt=found.fence, checkpoint=checkpoint)


def check_load_from(config: Preflight, shape: ModelShape) -> None:
    """Raise UserError when spec.checkpoint.loadFrom holds a model of other dimensions."""
    if config.checkpoint.load_from is None or content_of(resolve(config.checkpoint.directory)).step is not None:
        return
    try:
        folder, manifest = intact_checkpoint(resolve(config.checkpoint.load_from), "sizes")
    except UserError:
        return  # told already
    model = folder / MODEL
    found = manifest.shape or (read_shape(model) if (model / "config.json").is_file() else None)
    if found is None:
        return
    wrong = [f"{n} {getattr(found, n)}, not {getattr(shape, n)}" for n in SHAPE_FIELDS if getattr(found, n) != getattr(shape, n)]
    if wrong:
        what = f"spec.checkpoint.loadFrom {config.checkpoint.load_from}: its model has {'; '.join(wrong)}"
        raise UserError(what, "name a checkpoint of the model in spec.model.source")


def _backends(config: Preflight) -> None:
    if config.backends is not None:
        check_backends(config.backends)
        check_accelerator(config.backends, config.accelerator)
        if config.trainer is not None and config.optimizer is not None and config.precision is not None:
            check_fields(config.backends, config.accelerator, config.trainer, config.optimizer, config.precision)


def _reward(config: Preflight) -> None:
    if config.data.reward.type == "python" and config.imports_reward:
        make_scorer(config.data.reward).close()


def _episode(config: Preflight) -> None:
    """What the episode names can be imported and called; without the model, whose chat template is asked later."""
    if config.imports_episode:
        if config.episode.function is not None:
            load_function(config.episode.function)
        schemas_of(config.episode)


def _datasets(config: Preflight) -> list[tuple[str, Data, Sampling]]:
    """Return the fields that name prompts, and the data and sampling settings each is read with."""
    found = [("spec.data.prompts", config.data, config.sampling)]
    if config.evaluation is not None:
        held_out = config.data.model_copy(update={"prompts": config.evaluation.prompts, "shuffle": False})
        found.append(("spec.evaluation.prompts", held_out, evaluation_sampling(config.evaluation, config.sampling)))
    return found


def _prompt_files(config: Preflight) -> None:
    for field, data, _ in _datasets(config):
        path = resolve(data.prompts)
        if not path.is_file():
            kind = "a folder stands there" if path.is_dir() else "no such file"
            raise UserError(
                f"{field} {data.prompts.volume}:{data.prompts.path}: {kind} ({path})", "check the path, and what the claim holds"
            )


def _prompts(config: Preflight, model: Path, shape: ModelShape | None) -> None:
    tokenizer = load_tokenizer(model)
    told = check_episode(config.episode, config.data, tokenizer) if config.imports_episode else []
    context = context_length(config.rollout, shape) if shape is not None else None
    for _, data, sampling in _datasets(config):
        path = resolve(data.prompts)
        if path.is_file() and (part := bounded(path, data)) is not None:
            PromptDataset(path, part, tokenizer, config.seed, context=context, response=sampling.max_response_tokens, tools=told)


def bounded(path: Path, data: Data) -> Data | None:
    """Return settings that read at most as much of a file as the inspection may; None when even that is too much."""
    if path.stat().st_size <= WHOLE_BYTES:
        return data
    if path.suffix == ".parquet" and _largest_group(path) > GROUP_BYTES:
        log.info("%s: row groups of more than %d bytes; rows are checked by the driver", path, GROUP_BYTES)
        return None
    first, last = data.prompts.first_row, data.prompts.last_row
    until = first + ROWS if last is None else min(last, first + ROWS)
    log.info("%s: rows %d to %d are checked, the others by the driver", path, first, until)
    return data.model_copy(update={"prompts": data.prompts.model_copy(update={"last_row": until})})


def _largest_group(path: Path) -> int:
    try:
        meta = pq.ParquetFile(str(path)).metadata
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: not a readable parquet file ({error})", "make the file anew") from error
    return max((meta.row_group(n).total_byte_size for n in range(meta.num_row_groups)), default=0)


def _run_folder(config: Preflight) -> None:
    """The folder is this job's to write: it, or the nearest folder above it, takes a file."""
    where, folder = config.checkpoint.directory, resolve(config.checkpoint.directory)
    checked_content(folder, owner(config), str(where))
    try:
        with tempfile.NamedTemporaryFile(prefix=".lprl-", dir=existing_parent(folder)):
            pass
    except OSError as error:
        remedy = (PLACE_ERRNOS | MISSING_ERRNOS).get(error.errno or 0)
        if remedy is None:
            raise
        raise UserError(f"spec.checkpoint {where}: {error.strerror} ({folder})", remedy) from error


def _load_from(config: Preflight) -> None:
    """Digests of terabytes are the driver's to take; here every file is there, as long as it should be."""
    if config.checkpoint.load_from is not None and content_of(resolve(config.checkpoint.directory)).step is None:
        intact_checkpoint(resolve(config.checkpoint.load_from), "sizes")
