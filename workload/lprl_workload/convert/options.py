"""Options that say a weight format -> typed values; what the chosen format does not have is refused."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from lprl_api.model.formats import FORMATS, WeightFormat
from lprl_api.spec.precision import Scope
from lprl_workload.process.arguments import UsageError

KINDS = tuple(FORMATS)
ALIASES = {"fp8": "fp8-block", "int4": "int4-group"}
_FIELDS = {
    "group_size": "group_size",
    "scope": "scope",
    "grid": "grid",
    "scale_format": "scale_format",
    "activations": "activations",
    "exclude": "exclude_modules",
    "max_error": "exclude_modules",
}
"""Option -> the field a format has that takes it; a limit of error needs a format that rounds, as exclusions do."""


def _have(option: str) -> tuple[str, ...]:
    """Return the formats that have an option."""
    return tuple(kind for kind, fmt in FORMATS.items() if _FIELDS[option] in fmt.model_fields)


def config_option(options: argparse.ArgumentParser, model: str) -> None:
    """Add --config."""
    options.add_argument("--config", type=Path, required=True, metavar="FILE", help=f"{model} as JSON, as the operator renders it")


def format_options(options: argparse.ArgumentParser) -> None:
    """Add what makes a WeightFormat besides its kind."""
    options.add_argument("--group-size", type=int, choices=(32, 64, 128), help="input channels per INT4 scale; default 128")
    scopes = tuple(scope.value for scope in Scope)
    options.add_argument("--scope", choices=scopes, help="what INT4 covers; default routed-experts when there are any, else all-linear")
    grids = "INT4 codes: symmetric -7 to 7 (the default), source -8 to 7 where that is closer, which keeps an INT4 source's values"
    options.add_argument("--grid", choices=("symmetric", "source"), help=grids)
    options.add_argument("--scale-format", choices=("float32", "ue8m0"), help="block FP8 scales; default float32")
    means = "what engines do with the inputs of FP8 layers: quantise them (dynamic, the default) or leave them in BF16 (none: weight-only)"
    options.add_argument("--activations", choices=("dynamic", "none"), help=means)
    options.add_argument("--exclude", action="append", default=[], metavar="GLOB", help="modules left in high precision; may be repeated")


def check_options(kinds: Sequence[str], options: argparse.Namespace) -> None:
    """Refuse options that none of the formats `kinds` has. Raises UsageError."""
    chosen = {ALIASES.get(kind, kind) for kind in kinds}
    for name in _FIELDS:
        formats = _have(name)
        if getattr(options, name, None) and chosen.isdisjoint(formats):
            raise UsageError(
                f"--{name.replace('_', '-')}: {' and '.join(sorted(chosen))} has no such option",
                f"leave it out; {', '.join(formats)} has it",
            )


def weight_format(kind: str, options: argparse.Namespace, is_moe: bool) -> WeightFormat:
    """Return the format that `kind` (a row of KINDS, or fp8 or int4) and the options say."""
    scope = options.scope or (Scope.ROUTED_EXPERTS if is_moe else Scope.ALL_LINEAR)
    values = vars(options) | {"exclude": tuple(options.exclude), "scope": scope}
    chosen = {field: values[name] for name, field in _FIELDS.items() if name in values and name != "max_error" and values[name]}
    kind = ALIASES.get(kind, kind)
    if kind not in FORMATS:
        raise ValueError(f"format {kind!r}; fits {', '.join(KINDS)}")
    fields = FORMATS[kind].model_fields
    return FORMATS[kind].model_validate({field: value for field, value in chosen.items() if field in fields})  # type: ignore[return-value]
