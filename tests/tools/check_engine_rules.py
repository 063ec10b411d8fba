"""Do SGLang and vLLM still treat our exclude lists as engine_rules.py says? Executes their own functions, taken out of their wheels.

    pip download --no-deps sglang==0.5.23 vllm==0.33.0        (vLLM's wheel has several hundred MB; neither needs to be installed)
    python tests/tools/check_engine_rules.py sglang-*.whl vllm-*.whl

Only the functions about names are compiled, from their source; nothing else of the wheels runs. Exits with 1 where a verdict differs.
"""

import ast
import re
import sys
import zipfile
from collections.abc import Iterable, Mapping
from fnmatch import fnmatch
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "lprl_workload" / "quant"))
import engine_rules
from ignore_cases import DECLARED, SHAPES, TOWER, asked, cases, tensors

from lprl_api.model.formats import Fp8Block
from lprl_workload.quant.config_json import quantization_config
from lprl_workload.quant.select import Selection

QUANT = {"sglang": "sglang/srt/layers/quantization", "vllm": "vllm/model_executor/layers/quantization"}
FILES = {
    "sglang": ("utils.py", "compressed_tensors/utils.py"),
    "vllm": ("utils/quant_utils.py", "utils/config_utils.py", "compressed_tensors/utils.py"),
}
WANTED = {
    "_module_path_match", "_FALLBACK_FUSED_SHARDS", "is_layer_skipped", "should_ignore_layer", "check_equal_or_regex_match",
    "_is_equal_or_regex_match", "find_matching_patterns", "is_equal_or_regex_match",
}  # fmt: skip


def functions(wheel: Path, engine: str) -> dict[str, Any]:
    """Compile the wanted definitions of an engine."""
    found: dict[str, Any] = {
        "re": re, "fnmatch": fnmatch, "Mapping": Mapping, "MappingProxyType": MappingProxyType, "Iterable": Iterable, "Literal": Literal,
        "List": list, "Optional": __import__("typing").Optional,
    }  # fmt: skip
    with zipfile.ZipFile(wheel) as archive:
        for file in FILES[engine]:
            tree = ast.parse(archive.read(f"{QUANT[engine]}/{file}"))
            tree.body = [node for node in tree.body if _name(node) in WANTED]
            exec(compile(tree, f"{wheel.name}/{file}", "exec"), found)
    return found


def _name(node: ast.stmt) -> str | None:
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return node.target.id
    return node.name if isinstance(node, ast.FunctionDef) else None


def verdict(rule: Any, *arguments: Any) -> object:
    """Return what a rule says, a refusal to start included."""
    try:
        return bool(rule(*arguments))
    except (ValueError, engine_rules.Mixed):
        return "refuses to start"


def main(wheels: list[str]) -> int:
    """Compare every list and name."""
    count, differences = 0, []
    for path in map(Path, wheels):
        engine = path.name.split("-")[0]
        real = functions(path, engine)
        for case in (case for family in SHAPES for case in cases(family)):
            names = tensors(case)
            section = quantization_config(case.fmt, Selection.of(case.fmt, case.shape, names), names)
            fp8 = isinstance(case.fmt, Fp8Block)
            listed = section["modules_to_not_convert" if fp8 else "ignore"]  # type: ignore[index]
            known = [base + e.removeprefix("model.") for e in listed for base in ("", "model.")] if engine == "sglang" and fp8 else listed
            own = getattr(engine_rules, f"{engine}_{'fp8' if fp8 else 'compressed'}")
            for name in {
                *(n for n, _ in asked(case, engine)),
                *(f"{t.removeprefix('model.')}.{p}" for t in TOWER for p in ("q_proj", "qkv_proj")),
                "lm_head",
            }:
                for fused in (DECLARED[engine].get(case.family, {}), {}):
                    theirs = {key: list(parts) for key, parts in fused.items()}
                    got = verdict(real["is_layer_skipped" if fp8 else "should_ignore_layer"], name, known, theirs)
                    count += 1
                    if got != (wanted := verdict(own, listed, name, fused)):
                        differences.append(f"{path.name}: {case}: {name}: the engine {got}, restated {wanted}")
    print(*differences[:20], f"{count} verdicts, {len(differences)} differ", sep="\n")
    return int(bool(differences))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
