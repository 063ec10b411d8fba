"""Every exclude list we write, as its readers understand it.

Executed: `should_convert_module` of transformers (what `quant_method: fp8` asks) and `is_match` of compressed-tensors, as installed;
the rules of SGLang 0.5.23 (`is_layer_skipped`, `should_ignore_layer`) and vLLM 0.33.0 (the same names) as restated in engine_rules.py.
The engines are not installed here; tests/tools/check_engine_rules.py executed their own functions, out of the wheels, on all these
lists and names and found no difference from the restatement.
"""

import sys
from pathlib import Path

import pytest
from compressed_tensors.utils.match import is_match
from torch import nn
from transformers.quantizers.quantizers_utils import should_convert_module

from lprl_api.model.formats import Fp8Block
from lprl_workload.quant.config_json import parse_quantization_config, quantization_config
from lprl_workload.quant.select import Selection

sys.path.insert(0, str(Path(__file__).parent))
import engine_rules as rules
from ignore_cases import DECLARED, SHAPES, TOWER, Case, asked, cases, tensors

LINEAR = nn.Linear(1, 1)
FAMILIES = pytest.mark.parametrize("family", SHAPES)


def _listed(case: Case) -> tuple[list[str], Selection]:
    names = tensors(case)
    selection = Selection.of(case.fmt, case.shape, names)
    section = quantization_config(case.fmt, selection, names)
    assert section is not None
    return section["modules_to_not_convert" if isinstance(case.fmt, Fp8Block) else "ignore"], selection


@FAMILIES
@pytest.mark.parametrize("reader", ["sglang", "vllm"])
def test_an_engine_skips_exactly_what_is_stored_plain(family: str, reader: str) -> None:
    declared = DECLARED[reader].get(family, {})
    for case in cases(family):
        listed, selection = _listed(case)
        rule = getattr(rules, f"{reader}_{'fp8' if isinstance(case.fmt, Fp8Block) else 'compressed'}")
        # A compressed-tensors list must not need what a model class declares: wrappers and older releases do not.
        for fused in [declared] if isinstance(case.fmt, Fp8Block) else [declared, {}]:
            wrong = [n for n, module in asked(case, reader) if rule(listed, n, fused) == selection.takes(f"{module}.weight")]
            assert wrong == [], case


@FAMILIES
def test_transformers_converts_exactly_what_is_quantised(family: str) -> None:
    for case in cases(family):
        listed, selection = _listed(case)
        for name, module in asked(case, "transformers"):
            skips = not should_convert_module(name, listed) if isinstance(case.fmt, Fp8Block) else is_match(name, LINEAR, listed)
            assert skips != selection.takes(f"{module}.weight"), (case, name)


@FAMILIES
def test_towers_and_heads_are_skipped_whatever_a_reader_calls_them(family: str) -> None:
    for case in cases(family):
        listed, _ = _listed(case)
        fp8 = isinstance(case.fmt, Fp8Block)
        sglang, vllm = (rules.sglang_fp8, rules.vllm_fp8) if fp8 else (rules.sglang_compressed, rules.vllm_compressed)
        assert sglang(listed, "lm_head", {}) and vllm(listed, "lm_head", {}), case
        if case.prefix == "model.":
            continue
        assert vllm(listed, "language_model.lm_head", {}), case
        for tower in (tower.removeprefix("model.") for tower in TOWER):
            for name in (f"{tower}.q_proj", f"{tower}.qkv_proj"):
                assert sglang(listed, name, {}) and vllm(listed, name, {}), (case, name)
            inner = f"model.{tower}.q_proj"
            assert not should_convert_module(inner, listed) if fp8 else is_match(inner, LINEAR, listed), (case, tower)


@FAMILIES
def test_our_reader_makes_the_same_selection_of_the_list(family: str) -> None:
    for case in cases(family):
        names = tensors(case)
        written = Selection.of(case.fmt, case.shape, names)
        section = quantization_config(case.fmt, written, names)
        read = parse_quantization_config({"model_type": "x", "quantization_config": section}, case.shape)
        again = Selection.of(read, case.shape, names)
        assert read.kind == case.fmt.kind
        assert [n for n in names if again.takes(n)] == [n for n in names if written.takes(n)], case


def test_a_list_does_not_grow_with_the_layers_where_all_are_alike() -> None:
    listed, _ = _listed(next(case for case in cases("deepseek-v3") if case.fmt.kind == "int4-group"))
    assert len(listed) < 20
