"""Every example manifest, and every preset: its plan, Kubernetes objects and RunConfig are what tests/golden says (`make golden`)."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from lprl_api import names
from lprl_api.catalog.presets import PRESETS, preset_manifest
from lprl_api.model.hf_config import shape_from_config
from lprl_api.model.model_shape import Inspection, ModelShape
from lprl_api.model.shapes import SHAPES
from lprl_api.rules.parse import parse_job
from lprl_api.wire.runconfig import RunConfig
from lprl_fixtures.architectures import model_config
from lprl_operator.plan.explain import explain
from lprl_operator.plan.plan import make_plan
from lprl_operator.resources.render import render_all
from lprl_operator.resources.runconfig import run_config
from lprl_operator.resources.settings import RenderSettings

HERE = Path(__file__).parent
EXAMPLES = {p.stem: p for p in sorted((HERE.parents[1] / "examples").rglob("*.yaml")) if f"kind: {names.KIND}" in p.read_text()}
FINGERPRINT = "0123456789abcdef" * 4


class _Dumper(yaml.SafeDumper):
    """Writes text of several lines as a literal block, so that a ConfigMap's JSON can be reviewed."""


_Dumper.add_representer(str, lambda d, v: d.represent_scalar("tag:yaml.org,2002:str", v, style="|" if "\n" in v else None))


def example_shape(document: dict[str, Any]) -> ModelShape:
    architecture = document["metadata"]["labels"]["lprl.dev/demo-architecture"]
    if architecture in SHAPES:
        return SHAPES[architecture]
    return shape_from_config(model_config(architecture, "demo", 48, 0, 1, "bfloat16", False))


def files(document: dict[str, Any], shape: ModelShape, shards: int) -> dict[str, str]:
    """Return the golden files of a manifest by name."""
    job = parse_job(document)
    inspection = Inspection(shape=shape, fingerprint=FINGERPRINT, total_bytes=shards << 20, tensors=1, shards=shards)
    plan = make_plan(job.spec, shape, inspection=inspection)
    settings = RenderSettings()
    config: RunConfig = run_config(job, plan, inspection, settings)
    return {
        "plan.txt": explain(plan),
        "objects.yaml": str(yaml.dump_all(render_all(job, plan, inspection, settings), Dumper=_Dumper, sort_keys=False, width=160)),
        "runconfig.json": config.model_dump_json(by_alias=True, indent=1) + "\n",
    }


def check(case: str, found: dict[str, str]) -> None:
    for file, text in found.items():
        path = HERE / case / file
        if os.environ.get("LPRL_UPDATE_GOLDENS"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        assert path.read_text() == text, f"{case}/{file} differs: run `make golden` and look at the diff"


@pytest.mark.parametrize("case", EXAMPLES)
def test_example(case: str) -> None:
    document = yaml.safe_load(EXAMPLES[case].read_text())
    check(case, files(document, example_shape(document), 1))


@pytest.mark.parametrize("case", PRESETS)
def test_preset(case: str) -> None:
    document = preset_manifest(case)
    found = files(document, SHAPES[document["spec"]["model"]["shape"]], 16)
    check(case, {name: text for name, text in found.items() if name != "plan.txt"})  # test_presets.py has the plan


@pytest.mark.parametrize("path", sorted(HERE.glob("*/runconfig.json")), ids=lambda p: p.parent.name)
def test_a_written_run_config_still_parses(path: Path) -> None:
    """What an operator of an earlier revision wrote must be read by the pods of this one."""
    assert RunConfig.model_validate_json(path.read_text()).schema_version == 1
