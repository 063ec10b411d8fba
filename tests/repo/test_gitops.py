"""What docs/gitops.md gives Argo CD and Flux names the kind and conditions there are."""

import re
from pathlib import Path

import yaml

from lprl_api import names
from lprl_api.names import Condition

BLOCKS = re.findall(r"```yaml\n(.*?)```", (Path(__file__).parents[2] / "docs" / "gitops.md").read_text(), re.DOTALL)
ENDS = {Condition.COMPLETE, Condition.FAILED, Condition.SUSPENDED}


def test_argo_cd_asks_for_conditions_that_exist_and_knows_the_states_it_answers_with() -> None:
    (key, code), *more = yaml.safe_load(BLOCKS[0])["data"].items()
    assert (key, more) == (f"resource.customizations.health.{names.GROUP}_{names.KIND}", [])
    assert set(re.findall(r'condition\.type == "(\w+)"', code)) == ENDS
    assert set(re.findall(r'status = "(\w+)"', code)) == {"Progressing", "Degraded", "Healthy", "Suspended"}
    count = {word: len(re.findall(rf"\b{word}\b", code)) for word in ("if", "then", "do", "end")}
    assert count["if"] == count["then"] and count["end"] == count["then"] + count["do"]


def test_flux_asks_for_conditions_that_exist() -> None:
    (check,) = yaml.safe_load(BLOCKS[1])["spec"]["healthCheckExprs"]
    assert (check["apiVersion"], check["kind"]) == (names.API_VERSION, names.KIND)
    asked = " ".join((check["failed"], check["current"]))
    assert set(re.findall(r"'(\w+)'", asked)) - {"True"} == ENDS
    assert all(text.startswith("has(status.conditions) &&") for text in (check["failed"], check["current"]))
