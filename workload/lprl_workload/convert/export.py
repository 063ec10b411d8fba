"""A training checkpoint -> Hugging Face folders: BF16, FP8 and INT4 in one step, each a conversion like any other."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from lprl_api.errors import UserError
from lprl_api.model.content_key import content_key
from lprl_api.model.formats import WeightFormat
from lprl_api.spec.sources import ModelSource, VolumePath
from lprl_api.wire.runconfig import ConvertConfig
from lprl_workload.convert.cache import IDENTITY, claim, is_ours, partial_of
from lprl_workload.convert.disk import require_free
from lprl_workload.convert.files import CONFIG, MANIFEST
from lprl_workload.convert.finalise import finalise
from lprl_workload.convert.fingerprint import fingerprint
from lprl_workload.convert.job import OnShards, bytes_to_write
from lprl_workload.convert.manifest import ConversionManifest, damaged_files, read_manifest
from lprl_workload.convert.places import check_places
from lprl_workload.convert.progress import ShardProgress
from lprl_workload.convert.run import convert_shards
from lprl_workload.convert.shard_report import REPORTS
from lprl_workload.folder.config import read_known_shape
from lprl_workload.folder.model import read_contents

MODEL = "model"
STEP_PATTERN = "step-*"


def _silent(_: ShardProgress) -> None:
    """Report nothing."""


def model_of(checkpoint: Path) -> Path:
    """Return the Hugging Face folder of a run folder (its newest complete step), of a step folder, or the folder itself.

    Raises UserError when there is none.
    """
    if (checkpoint / CONFIG).is_file():
        return checkpoint
    if (checkpoint / MODEL / CONFIG).is_file():
        if not (checkpoint / MANIFEST).is_file():
            raise UserError(f"{checkpoint}: an unfinished checkpoint (no {MANIFEST})", "name a complete step")
        return checkpoint / MODEL
    complete = sorted(p for p in checkpoint.glob(STEP_PATTERN) if (p / MANIFEST).is_file() and (p / MODEL / CONFIG).is_file())
    if not complete:
        raise UserError(f"{checkpoint}: no model in it", "name a run folder with a complete step, a step folder or a Hugging Face folder")
    return complete[-1] / MODEL


def folder_config(source: Path, fmt: WeightFormat, threads: int | None, max_error: float | None = None) -> ConvertConfig:
    """Return the configuration of a conversion between plain folders (its paths are given beside it)."""
    found = fingerprint(source, "")
    return ConvertConfig(
        source=ModelSource(volume="source", path=MODEL),
        target=VolumePath(volume="target", path=MODEL),
        format=fmt,
        fingerprint=found,
        content_key=content_key(found, fmt),
        workers=1,
        threads=threads,
        max_relative_rms_error=max_error,
    )


def convert_folder(
    source: Path,
    target: Path,
    fmt: WeightFormat,
    threads: int,
    *,
    max_error: float | None = None,
    replace: bool = False,
    on_progress: OnShards = _silent,
) -> ConversionManifest:
    """Convert a folder in this process; finished shards of an interrupted call are kept.

    With `replace`, another conversion at `target` (an export of an earlier end of the run) is removed just before the new one
    takes its place. Raises what `convert_shards` and `finalise` raise.
    """
    check_places(source, target)
    config = folder_config(source, fmt, threads, max_error)
    partial = partial_of(target)
    found = read_manifest(target)
    if found is not None and found.content_key == config.content_key and not damaged_files(target, found):
        return finalise(config, source, target)
    if replace:
        if target.exists() and any(target.iterdir()) and not is_ours(target):
            raise UserError(f"{target}: is there already, and no conversion made it", "choose another folder to put the exports in")
        _drop_other_work(partial, config.content_key)
    contents = read_contents(source)
    require_free(partial, bytes_to_write(config, source, partial, contents), f"writing {fmt.kind}")
    claim(partial, config.content_key)
    convert_shards(source, partial, fmt, read_known_shape(source), tuple(contents.shards), threads, on_progress, contents)
    if replace:
        _make_way(target)
    return finalise(config, source, target)


def _make_way(target: Path) -> None:
    """Remove an earlier conversion. Aside first: what is left of it after a kill must not stand at the final name, half a folder."""
    aside = target.with_name(f".{target.name}.replaced")
    shutil.rmtree(aside, ignore_errors=True)
    if target.exists():
        target.rename(aside)
        shutil.rmtree(aside)


def _drop_other_work(partial: Path, key: str) -> None:
    """Remove unfinished work of another conversion."""
    identity = partial / REPORTS / IDENTITY
    if partial.exists() and not (identity.exists() and identity.read_text() == key):
        shutil.rmtree(partial)


def export_checkpoint(
    checkpoint: Path, out: Path, formats: Sequence[tuple[str, WeightFormat]], threads: int, on_progress: OnShards = _silent
) -> dict[str, Path]:
    """Write OUT/NAME for each (name, format) from a run's, a step's or a plain model folder; returns the folders by name.

    Each is complete under its final name (with manifest.json) or not there. Earlier exports are replaced.
    Raises UserError, before anything is written, for a place that is the checkpoint's own or cannot be written.
    """
    model = model_of(checkpoint)
    step = model.parent if (model.parent / MANIFEST).is_file() and model.name == MODEL else model
    if out.resolve() == checkpoint.resolve():
        raise UserError(f"{out}: is the checkpoint itself", "choose another folder to put the exports in, such as RUN/export")
    for name, _ in formats:
        check_places(step, out / name)
    out.mkdir(parents=True, exist_ok=True)
    for name, fmt in formats:
        convert_folder(model, out / name, fmt, threads, replace=True, on_progress=on_progress)
    return {name: out / name for name, _ in formats}
