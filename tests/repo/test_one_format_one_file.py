"""Who adds a weight format finds no chain over formats to extend: who names one is its own file, or listed here with a reason."""

import ast
from pathlib import Path

from lprl_api.model.formats import FORMATS, Bf16

ROOT = Path(__file__).parents[2]
NAMES = {fmt.__name__ for fmt in FORMATS.values() if fmt is not Bf16}
OWN = ("api/lprl_api/model/formats/", "workload/lprl_workload/quant/")
ASK = {
    "api/lprl_api/catalog/servable.py": "what SGLang's kernels take was measured for each",
    "api/lprl_api/rules/precision.py": "rules on fields of precision.int4 and precision.fp8",
    "api/lprl_api/rules/servable.py": "proposes fields of precision.int4",
    "operator/lprl_operator/plan/memory_trainer.py": "what TransformerEngine keeps of block FP8",
    "operator/lprl_operator/plan/notes.py": "the speed of dense INT4 was measured",
    "workload/lprl_workload/compare/compare.py": "advises a group size",
    "workload/lprl_workload/convert/verify.py": "published INT4 holds codes that the own rule never writes",
    "workload/lprl_workload/train/megatron/configuration.py": "TransformerEngine multiplies in block FP8",
    "workload/lprl_workload/rollout/sglang/releases.py": "what a release of SGLang loads and serves was found for each",
}


def asks(path: Path) -> bool:
    """Whether code matches or tests for a class of a quantised format."""
    text = path.read_text()
    if not any(name in text for name in NAMES):  # parsing takes longer than reading
        return False
    for node in ast.walk(ast.parse(text)):
        tested = isinstance(node, ast.MatchClass) or (isinstance(node, ast.Call) and getattr(node.func, "id", "") == "isinstance")
        if tested and NAMES & {name.id for name in ast.walk(node) if isinstance(name, ast.Name)}:
            return True
    return False


def test_who_asks_which_format_it_is_has_a_reason() -> None:
    sources = [path for root in ("api", "operator", "workload") for path in (ROOT / root).rglob("*.py")]
    places = (str(path.relative_to(ROOT)) for path in sources if asks(path))
    assert {place for place in places if not place.startswith(OWN)} == set(ASK)


def test_no_kernels_ask_for_another_format() -> None:
    assert not [path.name for path in (ROOT / OWN[1]).glob("*.py") if asks(path)]
