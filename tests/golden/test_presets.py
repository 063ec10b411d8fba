"""The presets' manifests and plans, and those of models that are only planned, are what tests/golden/<preset> says.

`make golden` (LPRL_UPDATE_GOLDENS=1) writes them anew.
"""

import os
from pathlib import Path

import pytest
import yaml

from lprl_api.catalog.presets import PRESETS, preset_manifest
from lprl_api.catalog.presets_planned import PLANNED, planned_manifest
from lprl_api.rules.parse import parse_job
from lprl_operator.plan.explain import explain
from lprl_operator.plan.plan import make_plan

HERE = Path(__file__).parent


def files(name: str) -> dict[str, str]:
    """Return the golden files of a preset by name."""
    manifest = preset_manifest(name) if name in PRESETS else planned_manifest(name)
    plan = explain(make_plan(parse_job(manifest).spec, planned=name in PLANNED))
    job = yaml.safe_dump(manifest, sort_keys=False, width=140)
    return {"job.yaml": job, "plan.txt": plan}


@pytest.mark.parametrize("name", PRESETS | PLANNED)
def test_golden(name: str) -> None:
    for file, text in files(name).items():
        path = HERE / name / file
        if os.environ.get("LPRL_UPDATE_GOLDENS"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        assert path.read_text() == text, f"{name}/{file} differs: run `make golden` and look at the diff"
