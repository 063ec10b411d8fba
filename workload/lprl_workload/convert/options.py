"""Options that say a weight format -> typed values; what the chosen format does not have is refused."""

import argparse
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from lprl_api.errors import UserError
from lprl_api.model.formats import Activations, Bf16, Fp8Block, Fp8Channel, Fp8Tensor, Int4Group, WeightFormat
from lprl_api.spec.precision import Scope
from lprl_workload.convert.weights import ModelFolder
from lprl_workload.folder.config import read_shape
from lprl_workload.process.arguments import UsageError
from lprl_workload.quant.select import expert_names, is_fused

FORMATS = ("bf16", "fp8-block", "fp8-channel", "fp8-tensor", "int4-group")
ALIASES = {"fp8": "fp8-block", "int4": "int4-group"}
_QUANTIZED = FORMATS[1:]
_HAVE = {
    "group_size": ("int4-group",),
    "scope": ("int4-group",),
    "scale_format": ("fp8-block",),
    "activations": ("fp8-block", "fp8-channel", "fp8-tensor"),
    "exclude": _QUANTIZED,
    "max_error": _QUANTIZED,
}
"""Option -> formats that have it."""


def config_option(options: argparse.ArgumentParser, model: str) -> None:
    """Add --config."""
    options.add_argument("--config", type=Path, required=True, metavar="FILE", help=f"{model} as JSON, as the operator renders it")


def format_options(options: argparse.ArgumentParser) -> None:
    """Add what makes a WeightFormat besides its kind."""
    options.add_argument("--group-size", type=int, choices=(32, 64, 128), help="input channels per INT4 scale; default 128")
    scopes = tuple(scope.value for scope in Scope)
    options.add_argument("--scope", choices=scopes, help="what INT4 covers; default routed-experts when there are any, else all-linear")
    options.add_argument("--scale-format", choices=("float32", "ue8m0"), help="block FP8 scales; default float32")
    means = "what engines do with the inputs of FP8 layers: quantise them (dynamic, the default) or leave them in BF16 (none: weight-only)"
    options.add_argument("--activations", choices=("dynamic", "none"), help=means)
    options.add_argument("--exclude", action="append", default=[], metavar="GLOB", help="modules left in high precision; may be repeated")


def check_options(kinds: Sequence[str], options: argparse.Namespace) -> None:
    """Refuse options that none of the formats `kinds` has. Raises UsageError."""
    chosen = {ALIASES.get(kind, kind) for kind in kinds}
    for name, formats in _HAVE.items():
        if getattr(options, name, None) and chosen.isdisjoint(formats):
            raise UsageError(
                f"--{name.replace('_', '-')}: {' and '.join(sorted(chosen))} has no such option",
                f"leave it out; {', '.join(formats)} has it",
            )


def check_exclusions(patterns: Iterable[str], source: Path) -> None:
    """Refuse a pattern of the command line that matches no module of the source: a misspelt one would quantise what it names.

    Manifests are not held to this: one list may serve several models.
    """
    shape = read_shape(source)
    experts = shape.moe.experts if shape.moe else 1
    names = (part for name in ModelFolder(source).names() for part in (expert_names(name, experts) if is_fused(name) else (name,)))
    modules = {name.removesuffix(".weight") for name in names}
    for pattern in patterns:
        if not any(fnmatchcase(module, pattern) for module in modules):
            raise UserError(
                f"--exclude {pattern}: matches no module of {source}",
                "patterns match whole module names, such as model.layers.0.self_attn.q_proj or *.q_proj; quote the *",
            )


def weight_format(kind: str, options: argparse.Namespace, is_moe: bool) -> WeightFormat:
    """Return the format that `kind` (a row of FORMATS, or fp8 or int4) and the options say."""
    excluded = tuple(options.exclude)
    activations: Activations = options.activations or "dynamic"
    match ALIASES.get(kind, kind):
        case "bf16":
            return Bf16()
        case "fp8-block":
            return Fp8Block(scale_format=options.scale_format or "float32", activations=activations, exclude_modules=excluded)
        case "fp8-channel":
            return Fp8Channel(activations=activations, exclude_modules=excluded)
        case "fp8-tensor":
            return Fp8Tensor(activations=activations, exclude_modules=excluded)
        case "int4-group":
            scope = Scope(options.scope or (Scope.ROUTED_EXPERTS if is_moe else Scope.ALL_LINEAR))
            return Int4Group(group_size=options.group_size or 128, scope=scope, exclude_modules=excluded)
    raise ValueError(f"format {kind!r}; fits {', '.join(FORMATS)}")
