"""The selection of a model without a table: what its class or its index says (`Ruled`), asked as a table is."""

from collections.abc import Iterable
from dataclasses import dataclass

from lprl_api.errors import UserError
from lprl_api.model.formats import WeightFormat
from lprl_workload.quant import ignore
from lprl_workload.quant.rule import Ruled
from lprl_workload.quant.select import Chosen, no_experts


@dataclass(frozen=True)
class RuledSelection(Chosen):
    """The weights of a model without a table that `fmt` quantises."""

    fmt: WeightFormat
    model: Ruled

    def __post_init__(self) -> None:
        """Refuse a scope the model has no module of."""
        if self.fmt.experts_only and "routed" not in self.model.kinds.values() and not self.model.refused:
            raise no_experts(self.model.model_class)

    def kind(self, name: str) -> str | None:
        """See Chosen. Raises UserError for what should be quantised and cannot be."""
        if name in self.model.refused and self._wanted(name):
            what = f"tensor {name}: {self.model.refused[name]}"
            raise UserError(what, f"leave it in high precision: precision.excludeModules (lprl convert: --exclude '{_glob(name)}')")
        parts = self.model.fused.get(name)
        return self.model.kinds.get(parts[0].name if parts else name)

    def _wanted(self, name: str) -> bool:
        return self.fmt.quantises(name.removesuffix(".weight"), routed=True)

    def is_fused(self, name: str) -> bool:
        """See Chosen."""
        return name in self.model.fused

    def parts(self, name: str) -> tuple[str, ...]:
        """See Chosen."""
        return tuple(part.name for part in self.model.fused[name]) if name in self.model.fused else (name,)

    def layout(self) -> ignore.Layout:
        """See Chosen."""
        return ignore.Layout(self.model.place.prefix, self.model.layers, self.model.place.container)

    def also_called(self, module: str) -> tuple[str, ...]:
        """See Chosen."""
        other = self.model.called.get(module)
        return (other,) if other else ()

    def check_refused(self, names: Iterable[str]) -> None:
        """Raise UserError for the first tensor that should be quantised and cannot be."""
        for name in names:
            self.kind(name)


def _glob(name: str) -> str:
    head, dot, _ = name.partition(".experts.")
    return "*.experts.*" if dot and head else f"*.{name.removesuffix('.weight').rpartition('.')[2]}"
