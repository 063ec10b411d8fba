"""Which nodes belong together: spans of groups of ranks against the mesh itself, the rule that no group of nodes cuts one, the page."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lprl_api.catalog.presets import preset_manifest
from lprl_api.derived.spans import spans, whole_nodes
from lprl_api.rules.check import check
from lprl_api.rules.parse import parse_job
from lprl_api.spec.job import LowPrecisionRLJobSpec
from lprl_api.spec.topology import TrainerLayout
from lprl_operator.plan.explain import explain
from lprl_operator.plan.plan import make_plan
from lprl_workload.train.mesh import TrainMesh

RACK = "example.com/rack"


def kimi(near: dict[str, Any] | None, nodes: int | str = 32) -> LowPrecisionRLJobSpec:
    document = preset_manifest("kimi-k2-thinking-int4")
    document["spec"]["topology"]["nodes"] = nodes
    if near is not None:
        document["spec"]["podTemplate"]["topology"] = near
    return parse_job(document).spec


def ranks_together(mesh: TrainMesh) -> dict[str, list[set[int]]]:
    """Groups of ranks that talk in every layer, by the mesh's own coordinates."""
    found: dict[str, dict[Any, set[int]]] = {"tensor": {}, "context": {}, "expert": {}}
    for rank in range(mesh.world):
        at = mesh.coordinates(rank)
        found["tensor"].setdefault((at.stage, at.data, at.context), set()).add(rank)
        found["context"].setdefault((at.stage, at.data), set()).add(rank)  # and its tensor groups: rings run side by side
        inside = rank % mesh.stage_ranks
        found["expert"].setdefault((at.stage, inside // (mesh.ep * mesh.etp)), set()).add(rank)
    return {name: list(groups.values()) for name, groups in found.items()}


@st.composite
def layouts(draw: st.DrawFn) -> tuple[TrainMesh, int]:
    sizes = st.sampled_from([1, 2, 3, 4, 8])
    tp, cp, ep, etp = (draw(sizes) for _ in range(4))
    pp = draw(st.integers(1, 3))  # stages are alike but for where they begin on a node, and hundreds of thousands of ranks take long
    dp = draw(st.integers(1, 3)) * ep * etp
    return TrainMesh(dp=dp, tp=tp, cp=cp, pp=pp, ep=ep, etp=etp), draw(st.sampled_from([1, 2, 4, 6, 8]))


@given(layouts())
def test_no_group_of_ranks_spans_more_and_whole_nodes_cut_none(given: tuple[TrainMesh, int]) -> None:
    mesh, slots = given
    layout = TrainerLayout(tensor=mesh.tp, context=mesh.cp, pipeline=mesh.pp, expert=mesh.ep, expert_tensor=mesh.etp)
    groups, size = ranks_together(mesh), whole_nodes(layout, slots)
    for span in spans(layout, slots):
        touched = [{rank // slots for rank in ranks} for ranks in groups[span.name]]
        assert max(len(nodes) for nodes in touched) <= span.nodes
        assert all(len({node // size for node in nodes}) == 1 for nodes in touched), "cut by a group of nodes"


def test_a_stage_of_the_large_preset_is_four_nodes_and_the_plan_says_so() -> None:
    spec = kimi(None)
    assert [(s.name, s.nodes) for s in spans(spec.topology.trainer, 8)] == [("tensor", 1), ("context", 4), ("expert", 4)]
    told = " ".join(explain(make_plan(spec)).split())
    assert (
        "tensor groups span 1 node, context groups 4 nodes, expert groups 4 nodes; a level of a queue's topology must hold 4 nodes" in told
    )
    told = " ".join(explain(make_plan(kimi({"required": RACK, "groupNodes": 4}))).split())
    assert f"8 groups, each group of nodes within one {RACK} (required)" in told
    assert f"1 group, all trainer nodes within one {RACK} (preferred)" in " ".join(explain(make_plan(kimi({"preferred": RACK}))).split())


@pytest.mark.parametrize(
    ("size", "nodes", "need"),
    [
        (2, 32, "4 or a multiple of it: tensor groups span 1 node, context groups 4 nodes, expert groups 4 nodes"),
        (6, 32, "4 or a multiple"),
        (12, 32, "a divisor of the trainer's 32 nodes"),
        (4, 96, "larger groups, or none: 24 groups"),
    ],
)
def test_groups_of_nodes_that_cannot_hold_what_belongs_together_are_refused(size: int, nodes: int, need: str) -> None:
    errors = [e for e in check(kimi({"required": RACK, "groupNodes": size}, nodes)) if e.path == "spec.podTemplate.topology.groupNodes"]
    assert len(errors) == 1 and errors[0].got == str(size) and need in errors[0].need


def test_planned_nodes_are_whole_groups() -> None:
    plan = make_plan(kimi({"required": RACK, "groupNodes": 16}, "auto"))
    assert plan.nodes % 16 == 0 and plan.together is not None and plan.together.groups == plan.nodes // 16


def test_a_job_of_one_node_says_nothing_of_it() -> None:
    assert make_plan(parse_job(preset_manifest("qwen3-4b-fp8")).spec).together is None
