"""Which tensors of a checkpoint are quantised: module by module as the format says (`Format.quantises`); quantization_config tells it on.

A decoder layer's linear modules are the candidates, by their Hugging Face checkpoint names:

    routed   X.mlp.experts.E.{gate,up,down}_proj.weight [N, K], or fused X.mlp.experts.gate_up_proj [E, 2I, H] and
             X.mlp.experts.down_proj [E, H, I] (how transformers 5 keeps them in memory)
    shared   X.mlp.shared_expert(s).{gate,up,down}_proj.weight
    mlp      X.mlp.{gate,up,down}_proj.weight
    attention X.self_attn.*_proj.weight (q, k, v, o, and MLA's q_a, q_b, kv_a_proj_with_mqa, kv_b)

They are candidates only directly below the text model: PREFIX.layers.N, where PREFIX.embed_tokens is its token embedding. So no
list of names is needed for towers. Everything else stays as it is, whatever its shape: embeddings, the output head, norms, routers
(mlp.gate), biases, MTP's eh_proj, conv1d, towers (image, video, audio) and projectors, 1-D tensors.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

from lprl_api.errors import UserError
from lprl_api.model.formats import Bf16, WeightFormat
from lprl_api.model.model_shape import ModelShape
from lprl_api.model.module_kinds import kind_of, text_prefix
from lprl_api.model.selection import TOGETHER
from lprl_workload.quant import ignore

__all__ = ["FUSED_DOWN", "FUSED_GATE_UP", "TOGETHER", "Selection", "expert_names", "is_fused", "kind_of", "text_prefix"]

FUSED_GATE_UP = ".experts.gate_up_proj"
FUSED_DOWN = ".experts.down_proj"


def is_fused(name: str) -> bool:
    """Return whether `name` is a fused 3-D expert tensor."""
    return name.endswith((FUSED_GATE_UP, FUSED_DOWN))


def expert_names(name: str, experts: int) -> tuple[str, ...]:
    """Return the per-expert names inside fused tensor `name`: (E0.gate, E0.up, E1.gate, ...) or (E0.down, E1.down, ...)."""
    base, leaf = name.rsplit(".", 1)
    leaves = ("gate_proj", "up_proj") if leaf == "gate_up_proj" else ("down_proj",)
    return tuple(f"{base}.{e}.{part}.weight" for e in range(experts) for part in leaves)


class Chosen(ABC):
    """The weights of a model that a format quantises: what is the same whether its names come from a shape or from a folder."""

    fmt: WeightFormat

    @abstractmethod
    def kind(self, name: str) -> str | None:
        """Return what kind of linear module a weight is of (`routed`: an expert chosen by a router), None for others."""

    @abstractmethod
    def is_fused(self, name: str) -> bool:
        """Return whether a tensor holds several weights that are written one by one."""

    @abstractmethod
    def parts(self, name: str) -> tuple[str, ...]:
        """Return the weights a tensor is written as: itself, or those it holds."""

    @abstractmethod
    def layout(self) -> ignore.Layout:
        """Return where decoder layers are, for lists of what is not quantised."""

    def also_called(self, module: str) -> tuple[str, ...]:
        """Return what else readers call a module."""
        return ()

    def selects(self, name: str, shape: tuple[int, ...]) -> bool:
        """Return whether weight `name` of `shape` is quantised.

        A fused expert tensor counts as its per-expert weights, which are selected all together or not at all.
        Raises UserError where INT4 groups do not divide the input channels (no engine reads a shorter last group).
        """
        if not self.takes(name):
            return False
        if len(shape) != (3 if self.is_fused(name) else 2):
            return False
        if misfit := self.fmt.misfit(shape[-1]):
            fits = self.fmt.fitting(shape[-1])
            exclude = f"add {name.removesuffix('.weight')} to precision.excludeModules (lprl convert: --exclude)"
            raise UserError(f"tensor {name}: {misfit}", f"set {fits}" if fits else exclude)
        return True

    def takes(self, name: str) -> bool:
        """Return whether `name` is selected by kind, scope and exclusions, its shape apart."""
        kind = self.kind(name)
        if kind is None:
            return False
        taken = [self.fmt.quantises(n.removesuffix(".weight"), routed=kind == "routed") for n in self.parts(name)]
        if any(taken) and not all(taken):
            raise UserError(f"precision.excludeModules: excludes some experts of {name} only", "exclude all experts of a layer or none")
        return taken[0]

    def ignored_modules(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return the modules of a checkpoint's weight `names` that stay in high precision, sorted; norms are left out.

        Raises what `divide` raises.
        """
        return self.divide(names)[1]

    def divide(self, names: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return (modules that are quantised, modules that stay in high precision) of a checkpoint's weight `names`, each sorted.

        Norms and embeddings are in neither: they are no linear layers. Raises UserError when nothing is selected, or when modules
        an engine runs as one are not treated alike.
        """
        weights = sorted({n for name in names for n in self.parts(name) if n.endswith(".weight")})
        taken = {name for name in weights if self.takes(name)}
        if not taken and not isinstance(self.fmt, Bf16):
            raise UserError(
                f"precision: {self.fmt.kind} with these scope and excludeModules selects no tensor of the model",
                "leave out less (precision.excludeModules; lprl convert: --exclude), or take another scope",
            )
        _check_fused_modules(weights, taken)
        self._check_experts(weights, taken)
        modules = (name.removesuffix(".weight") for name in weights if name not in taken)
        kept = tuple(m for m in modules if "norm" not in m.rsplit(".", 1)[-1] and not m.endswith("embed_tokens"))
        return tuple(name.removesuffix(".weight") for name in weights if name in taken), kept

    def _check_experts(self, weights: list[str], taken: set[str]) -> None:
        """Refuse a layer of which some experts are quantised and others not. Raises UserError."""
        experts: dict[str, bool] = {}
        for name in weights:
            if ".experts." in name and self.kind(name) == "routed":
                layer = name[: name.index(".experts.")]
                if experts.setdefault(layer, name in taken) != (name in taken):
                    what = f"precision.excludeModules: excludes some experts of {layer} only"
                    raise UserError(what, "exclude all experts of a layer or none")


@dataclass(frozen=True)
class Selection(Chosen):
    """The weights of a model of `shape` that `fmt` quantises."""

    fmt: WeightFormat
    shape: ModelShape
    prefix: str | None = None
    """Of the text model (`text_prefix`); None where no tensor of a tower is among the names."""

    @classmethod
    def of(cls, fmt: WeightFormat, shape: ModelShape, names: Iterable[str]) -> "Selection":
        """Return the selection for a checkpoint with tensors `names`. Raises UserError for a scope the model has no module of."""
        return cls(fmt, shape, text_prefix(names))

    def __post_init__(self) -> None:
        """Refuse a scope the model has no module of."""
        if self.fmt.experts_only and self.shape.moe is None:
            raise no_experts(self.shape.architecture)

    def kind(self, name: str) -> str | None:
        """See Chosen."""
        return kind_of(name, self.prefix)

    def is_fused(self, name: str) -> bool:
        """See Chosen."""
        return is_fused(name)

    def parts(self, name: str) -> tuple[str, ...]:
        """See Chosen."""
        return expert_names(name, self.shape.moe.experts if self.shape.moe else 1) if is_fused(name) else (name,)

    def layout(self) -> ignore.Layout:
        """See Chosen."""
        return ignore.Layout(self.prefix, self.shape.layers)


def no_experts(architecture: str) -> UserError:
    """Return the error of a scope that selects nothing."""
    return UserError(
        f"precision.int4.scope: routed-experts selects no tensor of {architecture}, which has no experts", "use scope all-linear"
    )


def _check_fused_modules(weights: list[str], taken: set[str]) -> None:
    present = set(weights)
    for name in weights:
        module = name.removesuffix(".weight")
        base, _, leaf = module.rpartition(".")
        for group in TOGETHER:
            if leaf != group[0]:
                continue
            members = [m for m in (f"{base}.{part}.weight" for part in group) if m in present]
            if len({m in taken for m in members}) > 1:
                raise UserError(
                    f"precision.excludeModules: {', '.join(members)} are one kernel in the engine", "exclude all of them or none"
                )
