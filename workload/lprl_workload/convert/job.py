"""One conversion as its pods run it: worker i of an Indexed Job, the finalise Job, and both on this machine."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lprl_api.wire.runconfig import ConvertConfig
from lprl_workload.config import resolve
from lprl_workload.convert.cache import check_key, check_reuse, claim, find_conversion, partial_of, share
from lprl_workload.convert.disk import require_free
from lprl_workload.convert.finalise import check_source_unchanged
from lprl_workload.convert.manifest import ConversionManifest
from lprl_workload.convert.progress import ShardProgress
from lprl_workload.convert.remote import OnDownload
from lprl_workload.convert.run import convert_shards, make_planner
from lprl_workload.convert.shard_report import read_report
from lprl_workload.convert.source import resolve_source
from lprl_workload.convert.writer import layout
from lprl_workload.folder.config import read_known_shape
from lprl_workload.folder.contents import FolderContents
from lprl_workload.folder.model import read_contents
from lprl_workload.process.cpus import available_cpus

OnShards = Callable[[ShardProgress], None]


@dataclass(frozen=True, slots=True)
class WorkerResult:
    """What a worker did."""

    shards: int
    """Shards of its share."""
    reused: bool
    """Whether the conversion was there already and its share of the digests was checked instead."""
    output_bytes: int


def run_worker(
    config: ConvertConfig, index: int, on_download: OnDownload, on_shards: OnShards, folders: tuple[Path, Path] | None = None
) -> WorkerResult:
    """Convert shards index, index + workers, ...; a worker without shards has nothing to do.

    `folders` are source and target where they are plain folders of this machine, not places in volumes.
    Raises UserError, StorageFullError as `resolve_source`, `find_conversion` and `convert_shards` do, and when the source is
    not the one that was inspected.
    """
    check_key(config)
    target = folders[1] if folders else resolve(config.target)
    found = find_conversion(target, config.content_key)
    source = folders[0] if folders else resolve_source(config.source, on_download)
    if found is not None:
        return _reuse(config, index, source, target, found)
    contents = read_contents(source)
    check_source_unchanged(config, source, contents)
    shards = share(tuple(contents.shards), index, config.workers)
    if not shards:
        return WorkerResult(0, False, 0)
    partial = partial_of(target)
    needed = bytes_to_write(config, source, partial, contents)
    volume = "" if folders else config.target.volume
    require_free(partial, needed, f"converting {source.name} to {config.format.kind}", volume)
    claim(partial, config.content_key)
    threads = config.threads or available_cpus()
    reports = convert_shards(source, partial, config.format, read_known_shape(source), shards, threads, on_shards, contents)
    return WorkerResult(len(reports), False, sum(report.output_bytes for report in reports))


def _reuse(config: ConvertConfig, index: int, source: Path, target: Path, found: ConversionManifest) -> WorkerResult:
    counted = 0

    def on_bytes(count: int) -> None:
        nonlocal counted
        counted += count

    check_reuse(target, source, found, index, config.workers, on_bytes)
    return WorkerResult(len(share(tuple(read_contents(source).shards), index, config.workers)), True, counted)


def bytes_to_write(config: ConvertConfig, source: Path, partial: Path, contents: FolderContents | None = None) -> int:
    """Return the bytes of all shards that are not converted yet, of every worker (they share the volume)."""
    planner = make_planner(source, config.format, read_known_shape(source), contents)
    needed = 0
    for shard in planner.index.shards:
        if read_report(partial, shard) is None:
            _, _, size = layout(tensor for piece in planner.plan(shard) for tensor in piece.outputs())
            half_written = partial / f".{shard}.writing"
            needed += size - (min(size, half_written.stat().st_blocks * 512) if half_written.exists() else 0)
    return needed
