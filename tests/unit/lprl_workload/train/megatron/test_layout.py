"""A run's layout as ranks have it; what is refused by field."""

from typing import Any

import pytest

from lprl_api.errors import UserError
from lprl_api.wire.runconfig import RunConfig
from lprl_fixtures.runs import run_config, write_inputs
from lprl_workload.train.megatron.layout import mesh_here, stages_of
from lprl_workload.train.megatron.stages import Stages
from lprl_workload.train.mesh import TrainMesh


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Any:
    found = tmp_path_factory.mktemp("volumes")
    write_inputs(found)
    return found


def run_of(root: Any, ranks: int = 1, data: int = 1, layers: int = 12, **layout: Any) -> RunConfig:
    found = run_config(root, {"trainer": layout, "ranks": {"trainer_ranks": ranks, "data_parallel": data}})
    return found.model_copy(update={"shape": found.shape.model_copy(update={"layers": layers})})


def test_stages_and_chunks_come_from_the_manifest(root: Any) -> None:
    run = run_of(root, 4, 1, pipeline=2, virtual_pipeline=3, tensor=2)
    assert stages_of(run) == Stages((6, 6), 3)
    assert mesh_here(run, 4) == TrainMesh(tp=2, pp=2, vpp=3)
    assert stages_of(run_of(root, 2, pipeline=2, last_stage_layers=2)) == Stages((10, 2))


def test_a_run_in_one_process_has_one_rank_whatever_was_planned(root: Any) -> None:
    assert mesh_here(run_of(root, 4, 4), 1) == TrainMesh()


@pytest.mark.parametrize(
    ("refuse", "layout", "words"),
    [
        (lambda run: mesh_here(run, 1), {"ranks": 4, "data": 2, "tensor": 2}, "needs a multiple of 2 ranks, and there are 1"),
        (stages_of, {"pipeline": 5}, "topology.trainer.pipeline 5: 12 layers"),
        (stages_of, {"pipeline": 2, "virtual_pipeline": 4}, "topology.trainer.virtualPipeline: stages of"),
    ],
)
def test_what_cannot_be_is_refused_by_field(root: Any, refuse: Any, layout: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        refuse(run_of(root, **layout))
