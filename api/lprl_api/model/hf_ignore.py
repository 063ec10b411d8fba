"""Lists of modules that are not quantised, read: which modules their rules name, and what that excludes.

A rule is a module's name (or the end of its path), or `re:` and a regular expression that matches from the start of the name.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any

from lprl_api.errors import UserError
from lprl_api.model.model_shape import ModelShape
from lprl_api.model.module_kinds import kind_of
from lprl_api.model.weight import LINEAR_KINDS
from lprl_api.model.weights import layer_weights

PREFIXES = ("model.", "language_model.model.", "model.language_model.", "language_model.", "model.text_model.", "")
"""What may stand before `layers.N` in a rule: nobody says here what the checkpoint's tensors are called."""
_EXPERTS = "mlp.experts"
_PARENT = re.compile(r"(?:^|\.)layers\.\d+(?:\.self_attn|\.mlp(?:\.shared_experts?|\.experts\.\d+)?)?$")
_PLACES = ("", "self_attn.", "mlp.", f"{_EXPERTS}.0.")
"""Where in a layer a rule that names the end of a path may apply."""
_FEW = 8
"""Repetitions that may be repeated themselves."""
_LAYERS = 128
"""Layers asked about where the shape is not known."""


def matcher(rules: Iterable[str]) -> Callable[[str], bool]:
    """Return a function that says whether any of `rules` names a module."""
    plain, patterns = set(), []
    for rule in rules:
        patterns.append(_compiled(rule)) if rule.startswith("re:") else plain.add(rule)

    def named(module: str) -> bool:
        parts = module.split(".")
        ends = (".".join(parts[i:]) for i in range(len(parts)))
        return any(end in plain for end in ends) or any(pattern.match(module) for pattern in patterns)

    return named


def _compiled(rule: str) -> re.Pattern[str]:
    """Return the regular expression of a rule. Raises UserError where it is none, or may take for ever on a module's name."""
    try:
        found = re.compile(rule[3:])
        endless = _repeats_within(re._parser.parse(rule[3:]), False)  # type: ignore[attr-defined]  # sre_parse is deprecated
    except (re.error, RecursionError, OverflowError) as error:
        raise UserError(f"quantization_config: {rule}: no regular expression ({error})", "restore the model's own config.json") from error
    if endless:
        what = f"quantization_config: {rule}: a repetition inside a repetition, which may take for ever"
        raise UserError(what, "list the modules by name")
    return found


def _repeats_within(part: Any, inside: bool) -> bool:
    """Return whether a parsed regular expression repeats without bound what repeats without bound: `(a+)+`.

    `part`: what `re`'s own parser makes of it, tuples and lists of operations.
    """
    if isinstance(part, tuple) and len(part) == 2 and str(part[0]) in ("MAX_REPEAT", "MIN_REPEAT"):
        _, most, repeated = part[1]
        many = int(most) > _FEW
        return (inside and many) or _repeats_within(repeated, inside or many)
    if isinstance(part, tuple | list) or type(part).__name__ == "SubPattern":
        return any(_repeats_within(inner, inside) for inner in part)
    return False


def excluded(ignored: Iterable[str], shape: ModelShape | None = None, *, with_parts: bool = False) -> tuple[str, ...]:
    """Return the glob patterns that `ignored` names beyond what no format ever quantises.

    A regular expression that is no glob becomes those of the modules of `shape` it matches; without a shape it is a UserError.

    `with_parts`: a name stands for the modules below it too, and for those whose path ends in it, as in `modules_to_not_convert`
    (`model.layers.0.self_attn`, `o_proj`).
    """
    found: list[str] = []
    for rule in ignored:
        if rule.startswith("re:"):
            found += _globs(rule, shape)
        elif with_parts and f".{_EXPERTS}".endswith(f".{rule}"):
            found.append(f"*.{_EXPERTS}.*")
        elif rule.endswith(f".{_EXPERTS}") or (with_parts and _PARENT.search(rule)):
            found.append(f"{rule}.*")
        elif kind_of(f"{rule}.weight") is not None:
            found.append(rule)
        elif with_parts and any(kind_of(f"model.layers.0.{place}{rule}.weight") for place in _PLACES):
            found.append(f"*.{rule}")
    return tuple(dict.fromkeys(found))


def excluded_experts(ignored: Iterable[str], shape: ModelShape | None) -> tuple[str, ...]:
    """Return those of `excluded` that name routed experts; rules about others may be any regular expression."""
    known = tuple(_experts(shape))
    about = [rule for rule in ignored if any(map(matcher([rule]), known)) or rule.endswith(f".{_EXPERTS}")]
    return tuple(glob for glob in excluded(about, shape) if any(fnmatchcase(module, glob) for module in known))


def untargeted(targets: Sequence[str], shape: ModelShape | None) -> tuple[str, ...]:
    """Return the glob patterns of the linear modules that no target of a scheme names."""
    if shape is None or not targets or "Linear" in targets:
        return ()
    wanted = matcher(targets)
    if not _modules(shape, wanted):
        return ()  # classes of an engine, whose modules are not known here
    return _modules(shape, lambda module: not wanted(module), every_prefix=True)


def routed_only(ignored: Sequence[str], targets: Sequence[str], shape: ModelShape | None) -> bool:
    """Return whether, of all linear modules of a model, only routed experts are targeted and not ignored."""
    if shape is not None and shape.moe is None:
        return False
    skipped, wanted = matcher(ignored), matcher(target for target in targets if target != "Linear")

    def quantised(module: str) -> bool:
        names = [prefix + module for prefix in PREFIXES]
        return not any(map(skipped, names)) and (not targets or "Linear" in targets or any(map(wanted, names)))

    if shape is not None:
        return not any(map(quantised, _others(shape)))
    # Without a shape: a mixture of experts is known by what is said of its dense layers or its router.
    layer = "layers.0."
    rest = not quantised(f"{layer}mlp.gate_proj") or skipped(f"model.{layer}mlp.gate")
    return rest and not quantised(f"{layer}self_attn.o_proj")


def _others(shape: ModelShape) -> Iterator[str]:
    """Yield the linear modules outside the routed experts that a format for all linear layers would quantise."""
    for layer in range(shape.layers + shape.mtp_layers):
        for weight in layer_weights(shape, layer):
            if weight.kind in LINEAR_KINDS and weight.kind != "expert" and not weight.module.endswith("kv_b_proj"):
                yield f"layers.{layer}.{weight.module}"


def _experts(shape: ModelShape | None) -> Iterator[str]:
    layers = _LAYERS if shape is None else shape.layers + shape.mtp_layers
    for layer in range(layers):
        for prefix in PREFIXES:
            yield from (f"{prefix}layers.{layer}.{_EXPERTS}.0.{name}" for name in ("gate_proj", "up_proj", "down_proj"))


def _modules(shape: ModelShape, named: Callable[[str], bool], *, every_prefix: bool = False) -> tuple[str, ...]:
    """Return globs of the linear modules that `named` holds for under one prefix, or under all."""
    hit, missed = defaultdict[str, list[int]](list), set[str]()
    holds = all if every_prefix else any
    for layer in range(shape.layers + shape.mtp_layers):
        for weight in layer_weights(shape, layer):
            if weight.kind not in LINEAR_KINDS:
                continue
            one = f"layers.{layer}.{weight.module.replace('*', '0')}"
            if holds(named(prefix + one) for prefix in PREFIXES):
                hit[weight.module].append(layer)
            else:
                missed.add(weight.module)
    alike = tuple(f"*.{module}" for module in hit if module not in missed)
    return alike + tuple(f"*layers.{layer}.{module}" for module in hit if module in missed for layer in hit[module])


def _globs(rule: str, shape: ModelShape | None) -> tuple[str, ...]:
    """Return the globs of a regular expression: its own translation, or the modules of the shape it matches."""
    _compiled(rule)
    try:
        return (_glob(rule[3:]),)
    except UserError:
        if shape is None:
            raise
    return _modules(shape, matcher([rule]))


def _glob(regex: str) -> str:
    """Translate a regular expression of literals and `.*` into a glob; raises UserError for anything else."""
    glob = regex.removesuffix("$").replace(r"\.", "\0").replace(".*", "*").replace("\0", ".")
    if re.search(r"[^\w.*-]", glob):
        raise UserError(f"quantization_config: ignore pattern re:{regex} is not supported", "list the modules by name")
    return glob if regex.endswith("$") or glob.endswith("*") else f"{glob}*"
