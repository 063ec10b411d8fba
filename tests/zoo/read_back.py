"""One family through the converter and back: what transformers reads of a converted folder is what its bytes say."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.zoo.decode import plain
from tests.zoo.engines import check_engines
from tests.zoo.families import Case
from tests.zoo.tiny import save, tiny_model
from torch import Tensor
from transformers import CompressedTensorsConfig

from lprl_api.errors import UserError
from lprl_api.model.formats import Fp8Block, Int4Group, WeightFormat
from lprl_api.spec.precision import Scope
from lprl_workload.convert.export import convert_folder
from lprl_workload.convert.verify import verify_folder
from lprl_workload.folder.model import read_contents
from lprl_workload.quant.rule import Ruled

FORMATS: tuple[WeightFormat, ...] = (Fp8Block(), Int4Group(group_size=32, scope=Scope.ALL_LINEAR))


def made(case: Case, folder: Path) -> tuple[Any, Path, Ruled]:
    """Return (model, its folder, what the converter knows of it)."""
    model = tiny_model(case.model_type, case.changes)
    source = save(model, folder / "source")
    ruled = read_contents(source).ruled
    assert ruled is not None
    return model, source, ruled


def logits(folder: Path, model_class: Any, **more: Any) -> Tensor:
    """Return a folder's logits as transformers computes them, every tensor of it used and none made up."""
    loaded, told = model_class.from_pretrained(folder, dtype=torch.bfloat16, local_files_only=True, output_loading_info=True, **more)
    assert not told["missing_keys"] and not told["mismatched_keys"], told
    tokens = torch.arange(5, 29).view(1, 24)
    with torch.no_grad():
        found: Tensor = loaded.float().eval()(input_ids=tokens, use_cache=False).logits
    assert found.isfinite().all()
    return found


def check_read_back(case: Case, folder: Path) -> None:
    """Convert to FP8 and INT4, decode both, and compare with what transformers reads of them."""
    model, source, ruled = made(case, folder)
    assert ruled.way == "class", ruled
    assert not ruled.refused, ruled.refused
    before = logits(source, type(model))
    for fmt in FORMATS:
        target = folder / fmt.kind
        convert_folder(source, target, fmt, 1)
        assert verify_folder(target, source, None).problems == ()
        taken = {name for name, kind in ruled.kinds.items() if fmt.quantises(name.removesuffix(".weight"), kind == "routed")}
        check_engines(source, target, ruled, taken)
        decoded = plain(target, folder / f"{fmt.kind}-plain")
        assert decoded == taken
        assert all(ruled.place.layer(name) is not None for name in decoded), "a tower's tensor has codes"
        wanted = logits(folder / f"{fmt.kind}-plain", type(model))
        compressed = isinstance(fmt, Int4Group)
        more = {"quantization_config": CompressedTensorsConfig(dequantize=True)} if compressed else {}
        if fmt.kind not in case.unread:
            assert torch.equal(logits(target, type(model), **more), wanted), fmt.kind
        assert not torch.equal(wanted, before)


def check_refused(case: Case, folder: Path) -> None:
    """Refuse by name what cannot be quantised, and convert the rest when it is left out."""
    _, source, ruled = made(case, folder)
    assert ruled.way == "class" and ruled.refused
    for fmt in FORMATS:
        with pytest.raises(UserError, match=re.escape(case.refused)) as error:
            convert_folder(source, folder / fmt.kind, fmt, 1)
        name, found = next(iter(ruled.refused)), str(error.value)
        assert name.split(".experts.")[0].rpartition(".")[2] in found and "--exclude" in (error.value.remedy or "")
        without = fmt.model_copy(update={"exclude_modules": tuple(name.removesuffix(".weight") for name in ruled.refused)})
        convert_folder(source, folder / fmt.kind, without, 1)
        assert verify_folder(folder / fmt.kind, source, None).problems == ()


def check_case(case: Case, folder: Path) -> None:
    """See the two above."""
    if case.refused:
        check_refused(case, folder)
    else:
        check_read_back(case, folder)
