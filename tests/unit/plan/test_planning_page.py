"""docs/planning.md names the families that are planned, and the figures of models that are only planned so far."""

from pathlib import Path

import pytest

from lprl_api.catalog.presets_planned import PLANNED, planned_manifest
from lprl_api.model.hf_config import FAMILIES
from lprl_api.model.layouts.decoders import DECODERS
from lprl_api.model.layouts.planned import BUILDERS
from lprl_api.model.proven import PROVEN
from lprl_api.rules.check import check
from lprl_api.rules.parse import parse_job
from lprl_cli import exits
from lprl_cli.main import main
from lprl_operator.plan.plan import make_plan

PAGE = (Path(__file__).parents[3] / "docs" / "planning.md").read_text()


def row(name: str) -> str:
    plan = make_plan(parse_job(planned_manifest(name)).spec, planned=True)
    group, engine = max(plan.gpus, key=lambda one: one.peak.total_bytes), plan.engine
    cells = (
        f"`{name}`",
        f"{plan.nodes} x {plan.gpus_per_node} {plan.accelerator}",
        f"{group.peak.total_bytes / 1e9:.1f} of {group.limit_bytes / 1e9:.1f} GB in {group.peak.name}",
        f"{engine.weight_bytes / 1e9:.1f} GB on {engine.slots} GPUs",
        f"{engine.concurrency} of {engine.sequence_tokens} tokens",
        f"{plan.host_bytes_per_node / 1e9:.0f} GB",
        f"{plan.disk.conversion_bytes / 1e9:.1f} GB",
    )
    return f"| {' | '.join(cells)} |"


@pytest.mark.parametrize("name", PLANNED)
def test_the_page_has_the_figures_of_a_model_that_is_only_planned(name: str) -> None:
    assert row(name) in PAGE


def test_the_page_names_the_families_of_both_tables() -> None:
    assert f"Trained, converted and planned: {', '.join(f'`{name}`' for name in FAMILIES)}." in PAGE
    planned, flat = {*DECODERS, *BUILDERS}, PAGE.replace("\n", " ")
    by_class, _, rest = flat.partition("By its class (")[2].partition("), and planned: ")
    assert "`backends` torch" in by_class and rest.startswith(", ".join(f"`{name}`" for name in sorted(planned & set(PROVEN))) + ".")
    assert f"Planned only, so far: {', '.join(f'`{name}`' for name in sorted(planned - set(PROVEN)))}." in flat


@pytest.mark.parametrize("name", PLANNED)
def test_a_layout_that_is_only_planned_says_so_and_no_manifest_of_it_is_written(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", name]) == exits.OK
    out, err = capsys.readouterr()
    assert out.startswith("Model      ") and "model.shape: got" in err and "a model that can be trained" in err
    assert main(["init", name]) == exits.USER_ERROR
    assert f"lprl plan {name} says what it would need" in capsys.readouterr().err
    assert [error.path for error in check(parse_job(planned_manifest(name)).spec)] == ["spec.model.shape"]
