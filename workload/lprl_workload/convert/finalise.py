"""Makes a finished conversion out of converted shards, in one process:

    check every report and the source -> index, config.json, tokenizer, report -> manifest.json -> rename TARGET.partial to TARGET

Each step can be killed and done again; every file is written aside and renamed, and TARGET appears complete, manifest included.
"""

import json
import math
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lprl_api.catalog.servable import folder_warnings
from lprl_api.errors import UserError
from lprl_api.model.hf_quantization import without_lists
from lprl_api.wire.answers import LargestError
from lprl_api.wire.runconfig import ConvertConfig
from lprl_workload.config import resolve
from lprl_workload.convert.cache import check_key, find_conversion, partial_of
from lprl_workload.convert.digest import digest_file
from lprl_workload.convert.files import CONFIG, MANIFEST, REPORT, REPORT_TABLE, copied_files
from lprl_workload.convert.fingerprint import fingerprint
from lprl_workload.convert.manifest import ConversionManifest, FileRecord, SourceRecord, write_manifest
from lprl_workload.convert.remote import OnDownload
from lprl_workload.convert.report import ConversionReport, as_table, make_report, worst_tensor
from lprl_workload.convert.shard_report import REPORTS, ShardReport, read_report
from lprl_workload.convert.source import resolve_source
from lprl_workload.convert.writer import fsync_folder, write_atomically
from lprl_workload.folder.config import read_known_shape
from lprl_workload.folder.contents import FolderContents
from lprl_workload.folder.files import INDEX_FILE
from lprl_workload.folder.header import read_header, read_json
from lprl_workload.folder.model import read_contents
from lprl_workload.folder.selection import selection_of
from lprl_workload.folder.untrained import untrained_layers
from lprl_workload.quant import QUANTIZER_VERSION
from lprl_workload.quant.config_json import KEYS, parse_quantization_config, quantization_config, strip_quantization

AGAIN = "run the conversion again: finished shards are kept"


def finalise(config: ConvertConfig, source: Path, target: Path) -> ConversionManifest:
    """Publish the conversion of `source` at `target`; returns its manifest, also when it was published before.

    Raises UserError when shards are missing or do not match, the source changed since it was inspected, or the error is above
    config.max_relative_rms_error, which a conversion published before may be, too.
    """
    check_key(config)
    partial = partial_of(target)
    found = find_conversion(target, config.content_key)
    if found is None:
        contents = read_contents(source)
        reports = checked_reports(config, contents, partial)
        check_source_unchanged(config, source, contents)
        told = untrained_layers(source), _warnings(source, config)
        report = make_report(config.content_key, config.fingerprint, config.format, QUANTIZER_VERSION, reports, *told)
        check_error(largest_error(report), config.max_relative_rms_error)
        write_side_files(config, source, partial, reports, report)
        found = seal(config, partial, reports)
        publish(partial, target)
    elif config.max_relative_rms_error is not None:
        check_error(published_error(target), config.max_relative_rms_error)
    # What was only of use while the work went on; a kill before this line leaves it behind, harmless.
    shutil.rmtree(target / REPORTS, ignore_errors=True)
    return found


def _warnings(source: Path, config: ConvertConfig) -> tuple[str, ...]:
    """Return what SGLang cannot serve; of families without a table that is not known."""
    shape = read_known_shape(source)
    return () if shape is None else tuple(folder_warnings(shape, config.format))


def checked_reports(config: ConvertConfig, contents: FolderContents, partial: Path) -> list[ShardReport]:
    """Return the report of every shard of the source, each matching the source, the format and the file it describes.

    Raises UserError naming the shards that do not.
    """
    found, missing = [], []
    for shard in contents.shards:
        report = read_report(partial, shard)
        if report is None or not _matches(report, config, contents.folder / shard, partial):
            missing.append(shard)
        else:
            found.append(report)
    if missing:
        total = len(missing) + len(found)
        raise UserError(f"{partial}: {len(missing)} of {total} shards are not converted, or not from this source: {_few(missing)}", AGAIN)
    return found


def _matches(report: ShardReport, config: ConvertConfig, source: Path, partial: Path) -> bool:
    stat, output = source.stat(), partial / report.output
    if (report.format, report.quantizer_version) != (config.format, QUANTIZER_VERSION):
        return False
    if (report.source_bytes, report.source_mtime_ns) != (stat.st_size, stat.st_mtime_ns):
        return False
    if not output.is_file() or output.stat().st_size != report.output_bytes:
        return False
    return tuple(sorted(tensor.name for tensor in read_header(output))) == report.weight_map


def check_source_unchanged(config: ConvertConfig, source: Path, contents: FolderContents | None = None) -> None:
    """Raise UserError when the source is no longer the one that was inspected."""
    found = fingerprint(source, config.volume_identity, contents)
    if found != config.fingerprint:
        raise UserError(
            f"{source}: changed since it was inspected (fingerprint {found[:12]}..., inspected {config.fingerprint[:12]}...)",
            "leave the source alone while jobs use it; apply the job again to inspect it anew",
        )


def largest_error(report: ConversionReport) -> LargestError:
    """Return the tensor that a limit is compared with."""
    worst = worst_tensor(report.tensors)
    if worst is None or worst.relative_rms_error is None:
        return LargestError()
    return LargestError(tensor=worst.name, relative_rms_error=worst.relative_rms_error if math.isfinite(worst.relative_rms_error) else None)


def published_error(target: Path) -> LargestError:
    """Return `largest_error` of a published conversion; raises UserError naming its report when that cannot be read."""
    try:
        return largest_error(ConversionReport.model_validate_json((target / REPORT).read_bytes()))
    except (OSError, ValidationError) as error:
        raise UserError(f"{target / REPORT}: cannot be read as a report of errors", "delete the folder and convert again") from error


def check_error(found: LargestError, limit: float | None) -> None:
    """Raise UserError when a tensor's relative RMS error is above the limit, or is no number."""
    if limit is not None and found.is_above(limit):
        raise UserError(
            f"tensor {found.tensor}: relative RMS error {found.words()} is above the limit {limit}",
            "raise --max-error, or keep the module in high precision with --exclude",
        )


def write_side_files(config: ConvertConfig, source: Path, partial: Path, reports: Sequence[ShardReport], report: ConversionReport) -> None:
    """Write everything but weights and manifest: index, config.json, tokenizer and templates, error report; drop leftovers."""
    for name in copied_files(source):
        write_atomically(partial / name, (source / name).read_bytes())
    _write_json(partial / INDEX_FILE, weight_index(reports))
    _write_json(partial / CONFIG, target_config(config, source, reports))
    write_atomically(partial / REPORT, report.model_dump_json(by_alias=True, indent=1).encode())
    write_atomically(partial / REPORT_TABLE, as_table(report).encode())
    expected = {*copied_files(source), INDEX_FILE, CONFIG, REPORT, REPORT_TABLE, REPORTS, *(r.output for r in reports)}
    for path in partial.iterdir():
        if path.name not in expected:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def weight_index(reports: Iterable[ShardReport]) -> dict[str, Any]:
    """Return model.safetensors.index.json: total_size is in bytes, the sum over all tensors' data."""
    places = {name: report.output for report in reports for name in report.weight_map}
    total = sum(report.data_bytes for report in reports)
    return {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}


def target_config(config: ConvertConfig, source: Path, reports: Sequence[ShardReport]) -> dict[str, Any]:
    """Return config.json of the target: the source's, with the target's quantization_config or none."""
    original: dict[str, Any] = read_json(source / CONFIG)
    tensors = [tensor for report in reports for tensor in report.tensors]
    out = strip_quantization(original)
    if any(tensor.format != "copied" for tensor in tensors):
        out = _with_dtype(out)
    names = [tensor.name for tensor in tensors]
    contents = read_contents(source)
    section = quantization_config(config.format, selection_of(config.format, read_known_shape(source), contents, names), names)
    if section is not None:
        out[KEYS[0]] = section
    found = parse_quantization_config(out if contents.ruled is None else without_lists(out))
    if found.kind != config.format.kind:
        raise RuntimeError(f"quantization_config reads back as {found.kind}, written as {config.format.kind}")
    return out


def _with_dtype(config: dict[str, Any]) -> dict[str, Any]:
    """Say bfloat16: served values are bfloat16 whatever the source was stored in."""
    keys = [key for key in ("dtype", "torch_dtype") if key in config]
    out = config | dict.fromkeys(keys or ["torch_dtype"], "bfloat16")
    if isinstance(out.get("text_config"), dict):
        out["text_config"] = _with_dtype(out["text_config"])
    return out


def seal(config: ConvertConfig, partial: Path, reports: Sequence[ShardReport]) -> ConversionManifest:
    """Write the manifest of everything in `partial`."""
    digests = {report.output: report.output_blake3 for report in reports}
    names = sorted(path.name for path in partial.iterdir() if path.is_file() and path.name != MANIFEST)
    manifest = ConversionManifest(
        content_key=config.content_key,
        fingerprint=config.fingerprint,
        format=config.format,
        quantizer_version=QUANTIZER_VERSION,
        source_shards=tuple(SourceRecord(name=r.shard, nbytes=r.source_bytes, xxh128=r.source_xxh128) for r in reports),
        files=tuple(
            FileRecord(name=name, nbytes=(partial / name).stat().st_size, blake3=digests.get(name) or digest_file(partial / name))
            for name in names
        ),
    )
    write_manifest(partial, manifest)
    return manifest


def publish(partial: Path, target: Path) -> None:
    """Rename the working folder to its final name, durably."""
    partial.rename(target)
    fsync_folder(target.parent)


def _write_json(path: Path, document: dict[str, Any]) -> None:
    write_atomically(path, (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode())


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def run_finalise(config: ConvertConfig, on_download: OnDownload) -> ConversionManifest:
    """Publish a conversion whose shards are all there; see `finalise`."""
    return finalise(config, resolve_source(config.source, on_download), resolve(config.target))
