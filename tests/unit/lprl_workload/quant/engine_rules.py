"""What SGLang and vLLM do with a list of modules that are not quantised, restated: (list, module name as the engine asks) -> skipped.

tests/tools/check_engine_rules.py takes the engines' own functions out of their wheels and compares them with these on the very lists
and names of test_ignore_in_engines.py. Run against sglang 0.5.23 and vllm 0.33.0: no difference.
make test-vllm runs vLLM's on those and on what the zoo's folders say.
"""

import re
from collections.abc import Callable, Mapping, Sequence

Mapped = Mapping[str, Sequence[str]]
"""Name of a fused module -> its parts, as a model class of the engine declares them (many declare none)."""
SGLANG_KNOWS: Mapped = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}


class Mixed(Exception):
    """Parts of one fused module are treated differently: the engine refuses to start."""


def _together(name: str, parts: Sequence[str], skipped: Callable[[str], bool]) -> bool:
    last = name.rpartition(".")[2]
    found = {skipped(name.replace(last, part)) for part in parts}
    if len(found) > 1:
        raise Mixed(name)
    return found.pop()


def sglang_fp8(listed: Sequence[str], name: str, fused: Mapped) -> bool:
    """Path components compared; every entry counts with and without `model.`; usual fusions are known without being declared."""
    known = [base + entry.removeprefix("model.") for entry in listed for base in ("", "model.")]

    def among(module: str) -> bool:
        return any(f".{entry}." in f".{module}." for entry in known)

    last = name.rpartition(".")[2]
    parts = fused.get(last) or SGLANG_KNOWS.get(last)
    if parts:
        return _together(name, parts, among)
    return among(name) or ("experts" in name and any(name in entry for entry in known if "experts" in entry))


def vllm_fp8(listed: Sequence[str], name: str, fused: Mapped) -> bool:
    """Whole names compared; a fused module is skipped by its own name or by those of its parts, experts by any name below them."""
    last = name.rpartition(".")[2]
    if last in fused:
        return name in listed or _together(name, fused[last], lambda module: module in listed)
    if "experts" in name:
        return any(name in entry for entry in listed if "experts" in entry)
    return name in listed


def _rule(entry: str, module: str) -> bool:
    return re.match(entry[3:], module) is not None if entry.startswith("re:") else entry == module


def sglang_compressed(listed: Sequence[str], name: str, fused: Mapped) -> bool:
    """Regular expressions from the start, or the end of a path; a declared fusion is looked up by its parts."""

    def among(module: str) -> bool:
        return any(_rule(entry, module) or (not entry.startswith("re:") and module.endswith(f".{entry}")) for entry in listed)

    last = name.rpartition(".")[2]
    return _together(name, fused[last], among) if last in fused and name not in listed else among(name)


def vllm_compressed(listed: Sequence[str], name: str, fused: Mapped) -> bool:
    """Regular expressions from the start, or whole names; a fusion's own name first, then those of its parts."""
    if any(_rule(entry, name) for entry in listed):
        return True
    last = name.rpartition(".")[2]
    return last in fused and _together(name, fused[last], lambda module: any(_rule(entry, module) for entry in listed))
