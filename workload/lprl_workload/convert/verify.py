"""Checks a converted (or foreign) folder and says how far it is from its source, tensor by tensor.

Computed by the plain path (safetensors, `quant.scheme`), not by the streaming converter: so it is a second opinion on the bytes.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from lprl_api.base import Contract
from lprl_api.errors import UserError
from lprl_api.model.formats import FORMATS, Bf16, Int4Group
from lprl_api.wire.answers import Answers
from lprl_workload.convert.files import MANIFEST
from lprl_workload.convert.manifest import ConversionManifest, manifest_problem, read_manifest
from lprl_workload.convert.weights import ModelFolder, StoredWeight
from lprl_workload.folder.config import read_known_shape
from lprl_workload.folder.files import INDEX_FILE
from lprl_workload.folder.header import read_json, total_bytes
from lprl_workload.folder.selection import selection_of
from lprl_workload.quant import QUANTIZER_VERSION
from lprl_workload.quant.error import relative_rms
from lprl_workload.quant.int4_group import dequantize_int4, quantize_int4, unpack
from lprl_workload.quant.scheme import module_of, quantize
from lprl_workload.quant.source import rounded

OnTensor = Callable[[str], None]
PIECE = 1 << 16
"""Elements compared at a time."""


class TensorCheck(Contract):
    """One weight against its source."""

    name: str
    format: str
    relative_rms_error: float
    max_abs_error: float
    by_the_rule: bool | None
    """Whether codes and scales are, bit for bit, what this quantizer makes of the source; None for what is not quantised."""


class RuleDifference(Contract):
    """What re-quantising a folder's INT4 values by this project's rule would change: the first weight sync does just that."""

    values: int
    changed_values: int
    codes_minus_8: int
    """Codes that the own, symmetric rule never writes."""
    relative_rms: float
    """Of the change, against the stored values."""
    changed_on_its_grid: int = 0
    """Values that change by grid `source`."""


class Verification(Contract):
    """Result of a verification; `problems` empty means the folder may be used."""

    folder: str
    format: str
    files: int
    """Files whose digest was compared with the manifest."""
    tensors: tuple[TensorCheck, ...] = ()
    rule_difference: RuleDifference | None = None
    answers: Answers | None = None
    """What became of the model's answers; None where no texts were given, or the folder has problems."""
    problems: tuple[str, ...] = ()

    @property
    def worst(self) -> TensorCheck | None:
        """The tensor with the largest relative RMS error."""
        return min(self.tensors, key=lambda t: (-t.relative_rms_error, t.name), default=None)


def verify_folder(folder: Path, source: Path | None, max_error: float | None, on_tensor: OnTensor = lambda _: None) -> Verification:
    """Check digests, index, config and (with `source`) every tensor; problems are collected, not raised.

    Raises UserError when the folder cannot be read as a model at all.
    """
    manifest = read_manifest(folder)
    problems = [p for p in [manifest_problem(folder)] if p] if manifest is None else _digest_problems(folder, manifest)
    model = ModelFolder(folder)
    problems += _index_problems(model) + _config_problems(model, manifest)
    checks: list[TensorCheck] = []
    if source is not None:
        own = manifest is not None and manifest.quantizer_version == QUANTIZER_VERSION
        checks, found = _compare(model, ModelFolder(source), own, on_tensor)
        problems += found
        if manifest is not None:
            problems += _source_problems(source, manifest)
    if max_error is not None:
        bad = [c for c in checks if not c.relative_rms_error <= max_error]
        problems += [f"tensor {c.name}: relative RMS error {c.relative_rms_error:.6f} is above the limit {max_error}" for c in bad]
    rule, found = _rule_difference(model, on_tensor)
    problems += found
    return Verification(
        folder=str(folder),
        format=model.fmt.kind,
        files=0 if manifest is None else len(manifest.files),
        tensors=tuple(checks),
        rule_difference=rule,
        problems=tuple(problems),
    )


def _rule_difference(model: ModelFolder, on_tensor: OnTensor) -> tuple[RuleDifference | None, list[str]]:
    if not isinstance(model.fmt, Int4Group):
        return None, []
    try:
        return rule_difference(model, on_tensor), []
    except UserError as error:
        return None, [error.message]


def _digest_problems(folder: Path, manifest: ConversionManifest) -> list[str]:
    problems = []
    for record in manifest.files:
        path = folder / record.name
        if not path.is_file():
            problems.append(f"{record.name}: missing")
        elif not record.matches(folder):
            problems.append(f"{record.name}: does not match {MANIFEST}")
    extra = {p.name for p in folder.iterdir()} - {record.name for record in manifest.files} - {MANIFEST}
    return problems + [f"{name}: not in {MANIFEST}" for name in sorted(extra)]


def _source_problems(source: Path, manifest: ConversionManifest) -> list[str]:
    strangers = (record for record in manifest.source_shards if not record.matches(source))
    return [f"{source / record.name}: is not the source this folder was made from" for record in strangers]


def _index_problems(model: ModelFolder) -> list[str]:
    path = model.folder / INDEX_FILE
    if not path.exists():
        return []
    metadata = read_json(path).get("metadata")
    said = metadata.get("total_size") if isinstance(metadata, dict) else None
    real = total_bytes(model.index.tensors.values())
    return [] if said is None or said == real else [f"{INDEX_FILE}: total_size {said}, the tensors have {real} bytes"]


def _config_problems(model: ModelFolder, manifest: ConversionManifest | None) -> list[str]:
    """Compare what config.json says with the manifest and with what is stored."""
    problems: list[str] = []
    if manifest is None:
        return problems  # a foreign folder quantises what it likes
    if manifest.format.kind != model.fmt.kind:
        problems.append(f"config.json: says {model.fmt.kind}, {MANIFEST} says {manifest.format.kind}")
    try:
        names = list(model.names())
        selection = selection_of(manifest.format, read_known_shape(model.folder), model.index, names)
        for name in names:
            if not name.endswith(".weight"):
                continue
            stored = any(f"{module_of(name)}.{leaf}" in model.index.where for leaf in ("weight_scale_inv", "weight_scale"))
            if stored != selection.takes(name):
                problems.append(f"tensor {name}: is {'' if stored else 'not '}quantised, config.json says otherwise")
    except UserError as error:
        problems.append(error.message)
    return problems


def _compare(model: ModelFolder, source: ModelFolder, own: bool, on_tensor: OnTensor) -> tuple[list[TensorCheck], list[str]]:
    checks, problems = [], []
    for name in model.names():
        on_tensor(name)
        stored = model.weight(name)
        try:
            check = _check(stored, source.weight(name).values())
        except UserError as error:
            problems.append(error.message)
            continue
        checks.append(check)
        if own and check.by_the_rule is False and isinstance(source.fmt, Bf16):
            problems.append(f"tensor {name}: differs from what the quantizer makes of the source")
        if not stored.quantized and check.max_abs_error != 0.0:
            problems.append(f"tensor {name}: is not quantised, but differs from the source by up to {check.max_abs_error:.3e}")
    return checks, problems


def _check(stored: StoredWeight, reference: Tensor) -> TensorCheck:
    values = stored.values()
    if values.shape != reference.shape:
        raise UserError(
            f"tensor {stored.name}: shape {list(values.shape)}, the source has {list(reference.shape)}",
            "convert the source again, or name the folder this one was made from",
        )
    quantized = stored.quantized
    wanted = rounded(reference) if quantized or values.dtype != reference.dtype else reference
    written = quantized and stored.fmt.kind in FORMATS
    by_the_rule = _same_bytes(stored.parts, quantize(stored.name, wanted, stored.fmt)) if written else None
    rms, most = difference(values, wanted)
    if not math.isfinite(rms):
        raise UserError(
            f"tensor {stored.name}: cannot be compared: NaN or infinite values, here or in the source",
            "copy or download the source again and convert it",
        )
    return TensorCheck(name=stored.name, format=stored.fmt.kind, relative_rms_error=rms, max_abs_error=most, by_the_rule=by_the_rule)


def _same_bytes(stored: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> bool:
    return all(
        stored[name].dtype == part.dtype
        and stored[name].shape == part.shape
        and torch.equal(stored[name].contiguous().view(torch.uint8), part.contiguous().view(torch.uint8))
        for name, part in wanted.items()
    )


def difference(values: Tensor, reference: Tensor) -> tuple[float, float]:
    """Return (relative RMS of values - reference against reference, largest absolute difference), float64 sums.

    Against a reference of zeros the RMS is absolute, so that a difference is never called none.
    """
    error = weight = most = 0.0
    a, b = values.reshape(-1), reference.reshape(-1)
    if torch.equal(a, b):
        return 0.0, 0.0
    # In pieces that stay in the cache: whole tensors in float64 cost several times as much.
    for start in range(0, a.numel(), PIECE):
        wanted = b[start : start + PIECE].double()
        apart = a[start : start + PIECE].double() - wanted
        error += float(apart.dot(apart))
        weight += float(wanted.dot(wanted))
        most = max(most, float(apart.abs().max()))
    return (math.sqrt(error / weight) if weight else math.sqrt(error)), most


def rule_difference(model: ModelFolder, on_tensor: OnTensor = lambda _: None, limit: int | None = None) -> RuleDifference:
    """Re-quantise INT4 weights (the first `limit` of them) by the own rule and count what changes.

    Raises UserError naming a tensor with NaN or infinite values.
    """
    values = changed = minus_8 = kept = 0
    error = weight = 0.0
    packed = [name for name in model.names() if name.endswith(".weight") and f"{name}_packed" in model.index.where]
    for name in packed[:limit]:
        on_tensor(name)
        stored = model.weight(name)
        before = stored.values()
        rows, cols = before.shape
        scale = stored.parts[f"{name}_scale"]
        try:
            codes, own_scale = quantize_int4(before, cols // scale.shape[1])
            there = dequantize_int4(*quantize_int4(before, cols // scale.shape[1], grid="source"))
        except ValueError as failure:
            raise UserError(f"{model.folder}: tensor {name}: {failure}", "convert the source again") from failure
        after = dequantize_int4(codes, own_scale)
        values += rows * cols
        changed += int((after != before).sum())
        kept += int((there != before).sum())
        minus_8 += int((unpack(stored.parts[f"{name}_packed"], cols) == -8).sum())
        error += float((after.double() - before.double()).square().sum())
        weight += float(before.double().square().sum())
    rms = relative_rms(error, weight)
    return RuleDifference(values=values, changed_values=changed, codes_minus_8=minus_8, relative_rms=rms, changed_on_its_grid=kept)
