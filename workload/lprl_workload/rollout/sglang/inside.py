"""What runs inside every rank of an SGLang server: takes buckets, looks where they land, and reports.

SGLang calls `serve` as a custom weight loader (server argument --custom-weight-loader, its official seam) with one named tensor: the
name is a command in JSON, the tensor is empty. Bytes come through a file that the server can read, or a handle of GPU memory; the report
goes into a file beside it, because a loader's result is dropped. An exception here would end the server, so it is reported as well.
"""

import base64
import json
import logging
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lprl_workload.data import Bucket, BucketEntry
from lprl_workload.io.dtypes import DTYPE_NAMES
from lprl_workload.rollout.sglang.landing import Landing, sent
from lprl_workload.sync.buckets import as_bytes, unpack
from lprl_workload.sync.checksum import checksum
from lprl_workload.sync.cuda_ipc import open_handle

log = logging.getLogger(__name__)
LOADER = "lprl_workload.rollout.sglang.inside.serve"
"""The server's argument --custom-weight-loader, and the load format of every call."""
TOGETHER = ("q_a_proj", "kv_a_proj_with_mqa")
"""Modules that DeepSeek's loader fuses, and forgets one half of where both do not come in one call."""
Report = dict[str, Any]


@dataclass(slots=True)
class Update:
    """One update as far as it came, in one rank."""

    landing: Landing | None
    names: list[str] = field(default_factory=list)
    waiting: dict[str, Tensor] = field(default_factory=dict)
    """Halves whose other half is still to come."""

    def complete(self, items: Sequence[tuple[str, Tensor]]) -> list[tuple[str, Tensor]]:
        """Return what can be loaded now, of `items` and of what waited."""
        ready: list[tuple[str, Tensor]] = []
        come = dict(items)
        for name, tensor in items:
            other = _other_half(name)
            if other is None or other in come:
                ready.append((name, tensor))
            elif other in self.waiting:
                ready += [(other, self.waiting.pop(other)), (name, tensor)]
            else:
                self.waiting[name] = tensor.clone()
        return ready

    def load(self, model: Any, items: Sequence[tuple[str, Tensor]]) -> None:
        """Have the model's own loader take tensors under checkpoint names."""
        landing = self.landing
        if items:
            model.load_weights([(n, sent(t, n, landing)) for n, t in items] if landing is not None else list(items))


def _other_half(name: str) -> str | None:
    for one, two in (TOGETHER, TOGETHER[::-1]):
        if f".{one}." in name:
            return name.replace(f".{one}.", f".{two}.")
    return None


def serve(model: Any, named: Sequence[tuple[str, Tensor]]) -> None:
    """Do what the one name says; see `OPERATIONS`. Raises nothing."""
    told = json.loads(named[0][0])
    try:
        with torch.no_grad():
            report = OPERATIONS[told["op"]](model, told)
        if torch.cuda.is_available():
            torch.cuda.current_stream().synchronize()
    except Exception as error:
        log.exception("weight operation %s", told.get("op"))
        report = {"error": f"{type(error).__name__}: {error}"}
    path = Path(f"{told['reply']}.{_rank()}")
    aside = Path(f"{path}.tmp")
    try:
        aside.write_text(json.dumps(report))
        aside.rename(path)
    except OSError as error:  # whoever asked is gone, or does not share the folder: it finds no report
        log.error("no report of a weight operation at %s: %s", path, error)


def _rank() -> int:
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0


def _begin(model: Any, told: Mapping[str, Any]) -> Report:
    """Expect an update; `restores`: the server has no sessions, so what was packed is made loadable here."""
    model.__dict__["lprl_update"] = Update(Landing() if told["track"] else None)
    if told["restores"]:
        for module, scheme in _schemes(model):
            scheme.restore_weights_before_loading(module)
    return {}


def _load(model: Any, told: Mapping[str, Any]) -> Report:
    """Load a bucket."""
    update: Update = model.__dict__["lprl_update"]
    items = [(item.name, item.tensor) for item in unpack(_bucket(model, told))]
    update.names += [name for name, _ in items]
    report: Report = {"tensors": len(items)}
    if told["sums"]:
        report["sums"] = {name: int(value) for name, value in zip(dict(items), _sums(items), strict=True)}
    update.load(model, update.complete(items))
    return report


def _settle(model: Any, told: Mapping[str, Any]) -> Report:
    """Load what waited for another half in vain, look where everything is, and have it packed again where nobody else does."""
    update: Update = model.__dict__.pop("lprl_update")
    update.load(model, list(update.waiting.items()))
    report: Report = {}
    if (landing := update.landing) is not None:
        report["unused"] = sorted(set(update.names) - landing.used)
        report["moved"] = landing.moved()
        report["unwritten"] = landing.unwritten(_to_be_written(model))
    return report | _pack(model, told)


def _pack(model: Any, told: Mapping[str, Any]) -> Report:
    """End an update that is given up, or the second half of one that is not."""
    model.__dict__.pop("lprl_update", None)
    if told["restores"]:
        for module, scheme in _schemes(model):
            scheme.process_weights_after_loading(module)
    return {}


def _hold(model: Any, told: Mapping[str, Any]) -> Report:
    """Write parameters as they are, from number `first` on, up to `nbytes` of them (or one), into a file of this rank."""
    entries: list[list[Any]] = []
    end = 0
    parameters = list(model.named_parameters())
    with Path(f"{told['file']}.{_rank()}").open("wb") as file:
        for name, parameter in parameters[told["first"] :]:
            raw = as_bytes(parameter)
            if entries and end + raw.numel() > told["nbytes"]:
                break
            entries.append([name, DTYPE_NAMES[parameter.dtype], list(parameter.shape), end, raw.numel()])
            file.write(raw.cpu().numpy().tobytes())
            end += raw.numel()
            file.write(b"\0" * (-end % 16))
            end += -end % 16
    return {"entries": entries, "left": len(parameters) - told["first"] - len(entries)}


def _take(model: Any, told: Mapping[str, Any]) -> Report:
    """Copy what `_hold` wrote in the same rank of another server into the parameters it came from."""
    parameters = dict(model.named_parameters())
    mine = f"{_rank()}/"
    items = [item for item in unpack(_bucket(model, told)) if item.name.startswith(mine)]
    taken = [(item.name, parameters[item.name.removeprefix(mine)].data.copy_(item.tensor)) for item in items]
    return {"sums": dict(zip((name for name, _ in taken), _sums(taken), strict=True))}


def _took(model: Any, told: Mapping[str, Any]) -> Report:
    """Make what follows from parameters anew, after `_take`."""
    if hasattr(model, "post_load_weights"):
        model.post_load_weights()
    return {"parameters": [name for name, _ in model.named_parameters()]}


OPERATIONS: Mapping[str, Callable[[Any, Mapping[str, Any]], Report]] = {
    "begin": _begin,
    "load": _load,
    "settle": _settle,
    "pack": _pack,
    "hold": _hold,
    "take": _take,
    "took": _took,
}


def _to_be_written(model: Any) -> Iterator[tuple[str, Tensor, int]]:
    """Yield every parameter of a checkpoint once, with how many of its elements it holds: embeddings end with rows of zeros."""
    seen: set[int] = set()
    for prefix, module in model.named_modules():
        rows = getattr(getattr(module, "shard_indices", None), "num_org_elements", None)
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) not in seen and not _made_here(name, parameter):
                seen.add(id(parameter))
                padded = rows is not None and parameter.ndim > 0 and rows < parameter.shape[0]
                needed = rows * parameter[0].numel() if padded else parameter.numel()
                yield (f"{prefix}.{name}" if prefix else name), parameter, needed


def _made_here(name: str, parameter: Tensor) -> bool:
    """Return whether no checkpoint of ours holds a parameter: scales of the KV cache, the order of input channels in INT4 kernels."""
    return bool(getattr(parameter, "_skip_weight_check", False)) or "g_idx" in name


def _schemes(model: Any) -> Iterator[tuple[Any, Any]]:
    """Yield modules with the scheme that can undo their packing."""
    for module in model.modules():
        scheme = getattr(module, "scheme", None)
        if hasattr(scheme, "restore_weights_before_loading"):
            yield module, scheme


def _bucket(model: Any, told: Mapping[str, Any]) -> Bucket:
    """Return the bucket a command speaks of, on the model's device."""
    device = next(model.parameters()).device
    if told.get("handles"):
        there = open_handle(pickle.loads(base64.b64decode(told["handles"][_rank()])))
        return Bucket(there.entries, there.data.to(device))
    entries = tuple(BucketEntry(name, dtype, tuple(shape), offset, n) for name, dtype, shape, offset, n in told["entries"])
    size = told["nbytes"]
    data = torch.from_file(told["file"], shared=False, size=size, dtype=torch.uint8) if size else torch.empty(0, dtype=torch.uint8)
    return Bucket(entries, data.to(device))


def _sums(items: Sequence[tuple[str, Tensor]]) -> list[int]:
    return [int(value) for value in torch.stack([checksum(tensor) for _, tensor in items]).tolist()] if items else []
