"""vLLM's own functions that say which layers are not quantised, executed on what the converter writes (`make test-vllm`).

Out of a wheel that is not installed: only the functions about names are compiled, with the fused modules and renamings that its class of
each family declares.
"""

import json
import os
from pathlib import Path

import pytest
from tests.tools import check_engine_rules
from tests.unit.lprl_workload.quant import engine_rules
from tests.vllm_wheel.vllm_source import Names, Vllm
from tests.zoo.engines import asked, linear_modules
from tests.zoo.families import ALL, Case
from tests.zoo.read_back import FORMATS, made

from lprl_workload.convert.export import convert_folder

CASES = [case for case in ALL if not case.refused]


@pytest.fixture(scope="session")
def wheel() -> Path:
    return Path(os.environ["LPRL_VLLM_WHEEL"])


@pytest.fixture(scope="session")
def vllm(wheel: Path) -> Vllm:
    return Vllm(wheel)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.model_type)
def test_vllm_skips_what_is_stored_plain_and_nothing_else(case: Case, vllm: Vllm, tmp_path: Path) -> None:
    model, source, ruled = made(case, tmp_path)
    architecture = type(model).__name__
    said = vllm.names(architecture) if vllm.knows(architecture) else Names()
    for fmt in FORMATS:
        convert_folder(source, tmp_path / fmt.kind, fmt, 1)
        section = json.loads((tmp_path / fmt.kind / "config.json").read_text())["quantization_config"]
        taken = {name for name, kind in ruled.kinds.items() if fmt.quantises(name.removesuffix(".weight"), kind == "routed")}
        fp8 = section["quant_method"] == "fp8"
        own = vllm.is_layer_skipped if fp8 else vllm.should_ignore_layer
        restated = engine_rules.vllm_fp8 if fp8 else engine_rules.vllm_compressed
        listed = section["modules_to_not_convert" if fp8 else "ignore"]
        mapped = [said.called(entry) for entry in listed]
        questions = list(asked(ruled, linear_modules(source, ruled, taken)))
        assert len(questions) > 4
        for name, plain in questions:
            # As a checkpoint has it, whatever a class declares; and as the class calls it, with the modules it runs as one.
            assert own(name, listed, {}) == plain == restated(listed, name, {}), (fmt.kind, name)
            called = said.called(name)
            assert own(called, mapped, said.fused) == plain == restated(mapped, called, said.fused), (fmt.kind, name, called)


def test_the_lists_of_families_with_a_table_are_read_as_restated(wheel: Path) -> None:
    assert check_engine_rules.main([str(wheel)]) == 0


def test_most_families_are_vllms_too(vllm: Vllm) -> None:
    from tests.zoo.prove import model_class

    known = [case.model_type for case in CASES if vllm.knows(model_class(case))]
    fused = [name for name in known if vllm.names(model_class(next(c for c in CASES if c.model_type == name))).fused]
    print(f"{len(known)} of {len(CASES)} families are registered, {len(fused)} say which modules are run as one")
    assert len(known) > 50 and len(fused) > 35
