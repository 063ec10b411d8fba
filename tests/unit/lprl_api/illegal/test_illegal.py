"""Every illegal manifest is refused with field path, value and remedy, all errors at once."""

import copy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from lprl_api.catalog.presets import PRESETS, preset_manifest
from lprl_api.field_error import FieldError, InvalidJob
from lprl_api.rules.check import check
from lprl_api.rules.parse import parse_job
from lprl_operator.admission import review
from lprl_operator.controller import consider
from lprl_operator.decide.observed import Observed
from lprl_operator.plan.plan import PlanError, make_plan
from lprl_operator.resources.settings import RenderSettings

HERE = Path(__file__).parent
BASES: dict[str, dict[str, Any]] = {
    **yaml.safe_load((HERE / "bases.yaml").read_text()),
    **{name: preset_manifest(name) for name in PRESETS},
}
CASES: list[dict[str, Any]] = [
    case for file in ("cases.yaml", "pods.yaml", "episodes.yaml") for case in yaml.safe_load((HERE / file).read_text())
]


def patched(base: str, changes: dict[str, Any]) -> dict[str, Any]:
    """Return a base with changes; `~~` removes a field."""
    document = copy.deepcopy(BASES[base])
    for path, value in changes.items():
        node = document if path.startswith("/") else document["spec"]
        *parents, leaf = path.removeprefix("/").split(".")
        for part in parents:
            node = node.setdefault(part, {})
        if value == "~~":
            del node[leaf]
        else:
            node[leaf] = value
    return document


def refusals(document: dict[str, Any]) -> list[FieldError]:
    """Return every error of a manifest, as `lprl validate` finds them."""
    try:
        make_plan(parse_job(document).spec)
    except (InvalidJob, PlanError) as error:
        return error.errors
    return []


@pytest.mark.parametrize("base", BASES)
def test_bases_are_legal(base: str) -> None:
    assert refusals(BASES[base]) == []


def test_there_are_sixty_cases() -> None:
    assert len(CASES) >= 60
    assert len({case["id"] for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", [pytest.param(case, id=case["id"]) for case in CASES])
def test_illegal(case: dict[str, Any]) -> None:
    found: dict[str, list[FieldError]] = {}
    for error in refusals(patched(case["base"], case["set"])):
        found.setdefault(error.path, []).append(error)
    wanted = {path[1:] if path.startswith("/") else f"spec.{path}": texts for path, texts in case["errors"].items()}
    assert wanted, "an illegal case names its errors"
    assert set(found) == set(wanted), "\n".join(str(error) for errors in found.values() for error in errors)
    for path, (got, need) in wanted.items():
        assert any(str(got) in error.got and need in error.need for error in found[path]), "\n".join(map(str, found[path]))


@pytest.mark.parametrize("case", [case for case in CASES if case["id"] in ("schema-and-rule", "schema-and-layout")], ids=lambda c: c["id"])
def test_the_webhook_and_the_operator_tell_both(case: dict[str, Any]) -> None:
    document = patched(case["base"], case["set"])
    told = review({"uid": "1", "operation": "CREATE", "object": document})["status"]["message"]
    said = consider(document, Observed(), datetime(2026, 1, 1, tzinfo=UTC), RenderSettings()).status["message"]
    for text in (told, said):
        assert [path for path in case["errors"] if f"spec.{path}: got" not in text] == []


ELSEWHERE = {"tracking": {"tensorboard": "maybe"}, "progress": {"intervalSecond": 3}}
"""Two schema errors that no rule looks at."""


@pytest.mark.parametrize("case", [pytest.param(case, id=case["id"]) for case in CASES])
def test_a_schema_error_elsewhere_hides_nothing(case: dict[str, Any]) -> None:
    document = patched(case["base"], case["set"])
    try:
        alone = check(parse_job(document).spec)
    except InvalidJob as error:
        alone = error.errors
    document["spec"].update(copy.deepcopy(ELSEWHERE))
    with pytest.raises(InvalidJob) as caught:
        parse_job(document)
    assert [error for error in caught.value.errors if not error.path.startswith(("spec.tracking", "spec.progress"))] == alone
