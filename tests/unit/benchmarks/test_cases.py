"""What the training benchmarks run: every pair of the product, each a legal job."""

from pathlib import Path

import pytest
from benchmarks.modes import charts, tables
from benchmarks.modes.run import cases
from benchmarks.modes.runs import Case
from benchmarks.real.cases import PAIRS, RealCase

from lprl_api.catalog.mismatch import ROWS
from lprl_api.rules.check import check
from lprl_api.rules.parse import parse_job
from lprl_api.spec.precision import Precision

MODES = cases(None, (0, 1, 2))
WANTED = {(row.training, row.rollout, row.activations) for row in ROWS} - {("bf16", "fp8", "none")}
"""Every measured pair; bf16 trained for a weight-only engine is served, not trained here."""


def pair(precision: Precision) -> tuple[str, str, str]:
    return precision.training, precision.rollout, precision.fp8.activations if precision.rollout == "fp8" else ""


@pytest.mark.parametrize("architecture", ["qwen3", "qwen3-moe"])
def test_every_pair_is_trained_on_the_small_models(architecture: str) -> None:
    chosen = [case for case in MODES if case.architecture == architecture]
    assert {pair(parse_job(case.manifest()).spec.precision) for case in chosen} == WANTED
    assert len({case.name for case in chosen}) == len(chosen) == 11


def test_every_pair_is_trained_on_the_real_model() -> None:
    assert {pair(Precision.model_validate(p.precision)) for p in PAIRS} == WANTED


@pytest.mark.parametrize("case", MODES, ids=lambda case: case.name)
def test_a_case_is_a_legal_job_of_the_pair_it_is_drawn_as(case: Case) -> None:
    spec = parse_job(case.manifest()).spec
    assert check(spec) == [] and case.mode == spec.precision.label
    assert case.mode in tables.ORDER and case.mode in charts.COLOURS and case.mode in charts.DASHES and case.mode in charts.DRAWN


@pytest.mark.parametrize("gpu", [False, True])
def test_a_case_of_the_real_model_is_a_legal_job(gpu: bool) -> None:
    for one in PAIRS:
        assert check(parse_job(RealCase(one, 0, Path("model"), gpu, "add1").manifest()).spec) == []
