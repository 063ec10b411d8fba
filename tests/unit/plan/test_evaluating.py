"""Engines that evaluate beside training: a plan has others to generate meanwhile, and says so."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from lprl_api.rules.parse import parse_job
from lprl_operator.plan.plan import PlanError, make_plan
from lprl_operator.plan.types import JobPlan

BASES = Path(__file__).parents[1] / "lprl_api" / "illegal" / "bases.yaml"
SPLIT: dict[str, Any] = yaml.safe_load(BASES.read_text())["split"]
"""Nodes of eight GPUs, engines of two: four a node."""


def planned(engines: int, **topology: Any) -> JobPlan:
    document = copy.deepcopy(SPLIT)
    spec = document["spec"]
    spec["evaluation"] = {"prompts": {"volume": "work", "path": "h.jsonl"}, "engines": engines}
    spec["topology"] |= topology
    del spec["topology"]["rollout"]["nodes"]
    return make_plan(parse_job(document).spec)


@pytest.mark.parametrize(("engines", "nodes", "found"), [(0, 1, 4), (3, 1, 4), (4, 2, 8), (8, 3, 12)])
def test_nodes_are_planned_so_that_one_engine_more_is_there_than_evaluate(engines: int, nodes: int, found: int) -> None:
    plan = planned(engines, nodes="auto")
    assert (plan.ranks.rollout_nodes, plan.ranks.engines) == (nodes, found)
    told = [note for note in plan.notes if note.startswith("evaluation.engines")]
    wanted = f"evaluation.engines: {engines} draw an evaluation beside training, the other {found - engines} of {found} engines generate"
    assert [note.removesuffix(" meanwhile") for note in told] == ([wanted] if engines else [])


def test_of_written_nodes_the_engines_get_enough_or_the_field_is_named() -> None:
    whole: dict[str, Any] = {"nodes": 4, "trainer": {"tensor": 4, "sequenceParallel": True}}
    assert planned(11, **whole).ranks.engines == 12
    with pytest.raises(PlanError, match=r"spec\.evaluation\.engines.*12"):
        planned(12, **whole)
