"""Command-line options of the conversion commands -> typed values; each --help teaches by example."""

import argparse
from pathlib import Path
from typing import NoReturn

from lprl_api.errors import UserError
from lprl_api.formats import Bf16, Fp8Block, Fp8Channel, Fp8Tensor, Int4Group, WeightFormat
from lprl_api.precision import Scope

FORMATS = ("bf16", "fp8-block", "fp8-channel", "fp8-tensor", "int4-group")
ALIASES = {"fp8": "fp8-block", "int4": "int4-group"}
PROG = "python -m lprl_workload"


class _Parser(argparse.ArgumentParser):
    """Wrong options are a user error (exit code 3) like any other wrong input."""

    def error(self, message: str) -> NoReturn:
        """Raise UserError."""
        raise UserError(f"{self.prog}: {message}", f"see {self.prog} --help")


def parser(command: str, description: str, examples: str) -> argparse.ArgumentParser:
    """Return the parser of a subcommand, its examples as they are typed."""
    epilog = (
        f"examples:\n{examples}\n\nexit codes: 0 done, 3 wrong input (one line says what and what to do), 5 volume full, 1 crash (retry)"
    )
    return _Parser(prog=f"{PROG} {command}", description=description, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter)


def config_option(options: argparse.ArgumentParser, model: str) -> None:
    """Add --config."""
    options.add_argument("--config", type=Path, required=True, metavar="FILE", help=f"{model} as JSON, as the operator renders it")


def format_options(options: argparse.ArgumentParser) -> None:
    """Add what makes a WeightFormat besides its kind."""
    options.add_argument("--group-size", type=int, choices=(32, 64, 128), default=128, help="input channels per INT4 scale; default 128")
    scopes = tuple(scope.value for scope in Scope)
    options.add_argument("--scope", choices=scopes, help="what INT4 covers; default routed-experts when there are any, else all-linear")
    options.add_argument("--scale-format", choices=("float32", "ue8m0"), default="float32", help="block FP8 scales; default float32")
    options.add_argument("--exclude", action="append", default=[], metavar="GLOB", help="modules left in high precision; may be repeated")


def weight_format(kind: str, options: argparse.Namespace, is_moe: bool) -> WeightFormat:
    """Return the format that `kind` (a row of FORMATS, or fp8 or int4) and the options say."""
    excluded = tuple(options.exclude)
    match ALIASES.get(kind, kind):
        case "bf16":
            return Bf16()
        case "fp8-block":
            return Fp8Block(scale_format=options.scale_format, exclude_modules=excluded)
        case "fp8-channel":
            return Fp8Channel(exclude_modules=excluded)
        case "fp8-tensor":
            return Fp8Tensor(exclude_modules=excluded)
        case "int4-group":
            scope = Scope(options.scope or (Scope.ROUTED_EXPERTS if is_moe else Scope.ALL_LINEAR))
            return Int4Group(group_size=options.group_size, scope=scope, exclude_modules=excluded)
    raise ValueError(f"format {kind!r}; fits {', '.join(FORMATS)}")
