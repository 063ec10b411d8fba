"""Lists of modules that are not quantised, read: which modules their rules name, and what that excludes.

A rule is a module's name (or the end of its path), or `re:` and a regular expression that matches from the start of the name.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase

from lprl_api.errors import UserError
from lprl_api.model_shape import ModelShape
from lprl_api.module_kinds import kind_of
from lprl_api.weights import LINEAR_KINDS, layer_weights

PREFIXES = ("model.", "language_model.model.", "model.language_model.", "language_model.", "model.text_model.", "")
"""What may stand before `layers.N` in a rule: nobody says here what the checkpoint's tensors are called."""
_EXPERTS = "mlp.experts"
_PARENT = re.compile(r"(?:^|\.)layers\.\d+(?:\.self_attn|\.mlp(?:\.shared_experts?|\.experts\.\d+)?)?$")
_PLACES = ("", "self_attn.", "mlp.", f"{_EXPERTS}.0.")
"""Where in a layer a rule that names the end of a path may apply."""
_LAYERS = 128
"""Layers asked about where the shape is not known."""


def matcher(rules: Iterable[str]) -> Callable[[str], bool]:
    """Return a function that says whether any of `rules` names a module."""
    plain, patterns = set(), []
    for rule in rules:
        patterns.append(re.compile(rule[3:])) if rule.startswith("re:") else plain.add(rule)

    def named(module: str) -> bool:
        parts = module.split(".")
        ends = (".".join(parts[i:]) for i in range(len(parts)))
        return any(end in plain for end in ends) or any(pattern.match(module) for pattern in patterns)

    return named


def excluded(ignored: Iterable[str], *, with_parts: bool = False) -> tuple[str, ...]:
    """Return the glob patterns that `ignored` names beyond what no format ever quantises. Raises UserError for one that is no glob.

    `with_parts`: a name stands for the modules below it too, and for those whose path ends in it, as in `modules_to_not_convert`
    (`model.layers.0.self_attn`, `o_proj`).
    """
    found = []
    for rule in ignored:
        if rule.startswith("re:"):
            found.append(_glob(rule[3:]))
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
    return tuple(glob for glob in excluded(about) if any(fnmatchcase(module, glob) for module in known))


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


def _glob(regex: str) -> str:
    """Translate a regular expression of literals and `.*` into a glob; raises UserError for anything else."""
    glob = regex.removesuffix("$").replace(r"\.", "\0").replace(".*", "*").replace("\0", ".")
    if re.search(r"[^\w.*-]", glob):
        raise UserError(f"quantization_config: ignore pattern re:{regex} is not supported", "list the modules by name")
    return glob if regex.endswith("$") or glob.endswith("*") else f"{glob}*"
