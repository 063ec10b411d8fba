"""WeightFormat <-> `quantization_config` of a Hugging Face config.json: what engines and transformers read.

What a section says is the format's own (lprl_api/model/formats/); which modules it lists as not quantised is found here.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from lprl_api.model.formats import Bf16, WeightFormat
from lprl_api.model.hf_quantization import KEYS, Json, find_quantization_config, parse_quantization_config, strip_quantization
from lprl_workload.quant import ignore
from lprl_workload.quant.select import Chosen, Selection

__all__ = ["KEYS", "Json", "find_quantization_config", "parse_quantization_config", "quantization_config", "strip_quantization"]


def quantization_config(fmt: WeightFormat, selection: Chosen, names: Iterable[str]) -> Json | None:
    """Return the `quantization_config` of a checkpoint with weights `names` (of the source) in `fmt`; None for bf16.

    Deterministic: lists are sorted. Raises what Selection.divide raises.
    """
    if isinstance(fmt, Bf16):
        return None
    known = tuple(names)
    if isinstance(selection, Selection) and selection.prefix is None:
        selection = Selection.of(fmt, selection.shape, known)
    taken, kept = selection.divide(known)
    kept = (*kept, *(other for module in kept for other in selection.also_called(module)))
    return fmt.quantization_config(_Ignored(taken, kept, selection.layout()))


@dataclass(frozen=True, slots=True)
class _Ignored:
    """See lprl_api.model.formats.base.Ignored."""

    taken: tuple[str, ...]
    kept: tuple[str, ...]
    layout: ignore.Layout

    def patterns(self) -> list[str]:
        return ignore.patterns(self.taken, self.kept, self.layout)

    def names(self) -> list[str]:
        return ignore.names(self.kept, self.layout)
