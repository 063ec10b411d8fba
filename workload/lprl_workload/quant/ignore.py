"""Lists of what is not quantised, written so that SGLang, vLLM and transformers read them as meant.

Each of them asks about modules under names of its own, and compares in a way of its own:

- engines run q, k and v as one module (`qkv_proj`), gate and up as `gate_up_proj`, MLA's first projections as
  `fused_qkv_a_proj_with_mqa` (SGLang) or `fused_qkv_a_proj` (vLLM), and not every model class says what those are made of;
- a language model inside another is called `model.layers.N` (SGLang's Kimi-K2.5), `language_model.model.layers.N`,
  `language_model.layers.N` (vLLM's) or `model.language_model.layers.N` (transformers 5), whatever the checkpoint says;
- SGLang calls a multi-token-prediction layer `model.decoder`.

compressed-tensors lists may hold regular expressions (`re:`, anchored at the start), so a rule names the end of a module's path where
all layers are alike, and layer and end where they are not. Lists of `quant_method: fp8` hold names only: every name a reader may
ask for is written. tests/unit/lprl_workload/quant/test_ignore_in_engines.py says what was executed.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from lprl_api.model.selection import TOGETHER

FUSED: Mapping[tuple[str, ...], tuple[str, ...]] = {
    **dict(zip(TOGETHER, (("qkv_proj",), ("fused_qkv_a_proj_with_mqa", "fused_qkv_a_proj"), ("gate_up_proj",)), strict=True)),
    ("in_proj_qkv", "in_proj_z"): ("in_proj_qkvz",),
    ("in_proj_b", "in_proj_a"): ("in_proj_ba",),
}
"""Modules that engines run as one -> the engines' names for it."""
PACKED: Mapping[str, tuple[str, ...]] = {"qkv_proj": TOGETHER[0], "gate_up_proj": TOGETHER[2]}
"""What some checkpoints store as one -> the parts that engines ask for nevertheless."""
PLAIN = "model."
"""Prefix of a language model that is no part of another model."""
PREFIXES = (PLAIN, "language_model.model.", "model.language_model.", "language_model.")
"""What engines and transformers call the language model of a multimodal one."""
HEAD = "lm_head"
EXPERTS = "experts"
"""Readers ask for a layer's experts as a whole (`mlp.experts`), and match what lies below."""
_IN_EXPERTS = re.compile(rf"((?:.*\.)?{EXPERTS})\.")


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the text model's layers are in a checkpoint."""

    prefix: str | None
    """`text_prefix`; None where it is not known."""
    layers: int
    """Decoder layers; those from there on predict further tokens."""
    container: str = "layers"
    """What stands before a layer's number."""

    def split(self, module: str) -> tuple[int, str] | None:
        """Return (layer, end of the path) of a module of the text model's layers, experts as a whole; None for others."""
        before = r"(?:.*\.)?" if self.prefix is None else re.escape(self.prefix)
        found = re.fullmatch(before + re.escape(self.container) + r"\.(\d+)\.(.+)", module)
        if found is None:
            return None
        experts = _IN_EXPERTS.match(found[2])
        return int(found[1]), experts[1] if experts else found[2]


def patterns(taken: Iterable[str], kept: Iterable[str], layout: Layout) -> list[str]:
    """Return the compressed-tensors `ignore` list, sorted: it covers each linear module of `kept` and none of `taken`."""
    kept, taken = (*kept, HEAD), tuple(taken)
    kept_layers, taken_layers = _by_end(kept, layout), _by_end(taken, layout)
    rules: set[str] = set()
    for end, layers in kept_layers.items():
        known = [end, *_fused(end, kept_layers)]
        if end not in taken_layers:
            rules.update(rule for name in known for rule in _ending(r".*\.", name))
            continue
        for layer, modules in layers.items():
            place = [rf".*{_literal(layout.container)}\.{layer}\."] + ([r".*\.decoder\."] if layer >= layout.layers else [])
            rules.update(rule for name in known for before in place for rule in _ending(before, name))
            rules.update(module.removesuffix(end) + name for module in modules for name in known if not _is_experts(end))
    used = {part for module in taken for part in module.split(".")}
    for module in kept:
        if layout.split(module) is None:
            rules.update(_outside(module, used))
    return sorted(rules)


def names(kept: Iterable[str], layout: Layout) -> list[str]:
    """Return the list of a `quant_method: fp8` section (`modules_to_not_convert`), sorted."""
    kept = (*kept, HEAD)
    found: set[str] = set()
    layers = _by_end(kept, layout)
    for end, by_layer in layers.items():
        for name in [end, *_fused(end, layers)]:
            for layer, modules in by_layer.items():
                found.update(f"{base}{layout.container}.{layer}.{name}" for base in _bases(modules[0], layer, layout))
                found.update({f"{PLAIN}decoder.{name}"} if layer >= layout.layers else ())
    outside: dict[str, tuple[int, ...]] = {module: () for module in kept if layout.split(module) is None}
    for module in outside:
        known = (module, *_fused(module, outside))
        found.update(known)
        if layout.prefix not in (None, PLAIN):
            found.update(name.removeprefix(PLAIN) for name in known)
            found.update(f"{base}{HEAD}" for base in PREFIXES if module.endswith(HEAD))
    return sorted(found)


def _bases(module: str, layer: int, layout: Layout) -> tuple[str, ...]:
    """Return what may stand before `layers.N` of a module: its own prefix, and with one of another model also its readers'."""
    own = module[: module.index(f"{layout.container}.{layer}.")]
    return (own,) if own == PLAIN else (own, *PREFIXES)


def _by_end(modules: Iterable[str], layout: Layout) -> dict[str, dict[int, list[str]]]:
    """Return end of the path -> layer -> modules."""
    found: dict[str, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
    for module in modules:
        if place := layout.split(module):
            found[place[1]][place[0]].append(module)
    return found


def _fused(end: str, kept: Mapping[str, Collection[int]]) -> Iterator[str]:
    """Yield what engines call the fusion of `end` with siblings kept in the same layers, and the parts of a packed one."""
    base, dot, last = end.rpartition(".")
    yield from (f"{base}{dot}{part}" for part in PACKED.get(last, ()))
    for members, known in FUSED.items():
        siblings = [f"{base}{dot}{other}" for other in members]
        if last == members[0] and all(other in kept and set(kept[end]) <= set(kept[other]) for other in siblings):
            yield from (f"{base}{dot}{name}" for name in known)


def _ending(before: str, name: str) -> Iterator[str]:
    """Yield the rules for paths that end in `name`; experts are asked for as a whole and one by one."""
    yield f"re:{before}{_literal(name)}$"
    if _is_experts(name):
        yield rf"re:{before}{_literal(name)}\..*"


def _is_experts(end: str) -> bool:
    return end == EXPERTS or end.endswith(f".{EXPERTS}")


def _outside(module: str, used: Collection[str]) -> Iterator[str]:
    """Yield the rules for a module outside the text model's layers: its whole tower or projector, where the name is theirs alone."""
    root, _, rest = module.removeprefix(PLAIN).partition(".")
    last = module.rpartition(".")[2]
    if last == HEAD:
        yield from (HEAD, rf"re:.*\.{HEAD}$")
    elif rest and root not in used:
        yield from (rf"re:{_literal(root)}\..*", rf"re:.*\.{_literal(root)}\..*")
    else:
        yield from (module, rf"re:.*\.{_literal(module)}$")


def _literal(path: str) -> str:
    """Escape a module path; `re.escape` would also escape `-`, which not every reader of these lists expects."""
    return path.replace(".", r"\.")
