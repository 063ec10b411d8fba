"""SGLang's own functions that say which layers are not quantised, executed on what the converter writes of families without a table."""

import json
from pathlib import Path

import pytest
from sglang.srt.layers.quantization.compressed_tensors.utils import should_ignore_layer
from sglang.srt.layers.quantization.fp8 import Fp8Config
from sglang.srt.layers.quantization.utils import is_layer_skipped
from tests.unit.lprl_workload.quant import engine_rules
from tests.zoo.engines import asked, linear_modules
from tests.zoo.families import ALL, Case
from tests.zoo.read_back import FORMATS, made

from lprl_workload.convert.export import convert_folder

NEWER = ("cohere2_moe", "lfm3")
"""Classes that the transformers release beside SGLang does not hold, or not whole."""
CASES = [case for case in ALL if not case.refused and case.model_type not in NEWER]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.model_type)
def test_sglang_skips_what_is_stored_plain_and_nothing_else(case: Case, tmp_path: Path) -> None:
    _, source, ruled = made(case, tmp_path)
    for fmt in FORMATS:
        convert_folder(source, tmp_path / fmt.kind, fmt, 1)
        section = json.loads((tmp_path / fmt.kind / "config.json").read_text())["quantization_config"]
        taken = {name for name, kind in ruled.kinds.items() if fmt.quantises(name.removesuffix(".weight"), kind == "routed")}
        fp8 = section["quant_method"] == "fp8"
        own, restated = (is_layer_skipped, engine_rules.sglang_fp8) if fp8 else (should_ignore_layer, engine_rules.sglang_compressed)
        listed = section["modules_to_not_convert" if fp8 else "ignore"]
        known = Fp8Config.from_config(section).ignored_layers if fp8 else listed
        questions = list(asked(ruled, linear_modules(source, ruled, taken)))
        assert len(questions) > 4
        for name, plain in questions:
            assert own(name, known, {}) == plain == restated(listed, name, {}), (fmt.kind, name)
