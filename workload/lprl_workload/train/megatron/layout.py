"""A run's layout as Megatron's ranks have it. Needs no Megatron."""

from lprl_api.derived.stages import stage_layers
from lprl_api.errors import UserError
from lprl_api.wire.runconfig import RunConfig
from lprl_workload.train.megatron.stages import Stages
from lprl_workload.train.mesh import TrainMesh, mesh_of


def stages_of(run: RunConfig) -> Stages:
    """Return which layers each stage has; raises UserError where they cannot be cut so."""
    layout = run.trainer
    layers = stage_layers(run.shape.layers, layout.pipeline, layout.last_stage_layers)
    if layers is None:
        raise UserError(f"topology.trainer.pipeline {layout.pipeline}: {run.shape.layers} layers cannot be cut so", "see lastStageLayers")
    try:
        return Stages(layers, layout.virtual_pipeline)
    except ValueError as error:
        raise UserError(f"topology.trainer.virtualPipeline: {error}", "use a divisor of each stage's layers") from error


def mesh_here(run: RunConfig, world: int) -> TrainMesh:
    """Return the mesh of `world` ranks: as planned, or of one rank where a run has everything in one process.

    Raises UserError where the layout needs more.
    """
    planned = mesh_of(run)
    if planned.world == world:
        return planned
    if world == 1 and planned.dp == planned.world:
        return TrainMesh()
    what = f"topology.trainer: this layout needs a multiple of {planned.world // planned.dp} ranks, and there are {world}"
    raise UserError(what, "run it on Ray (without --in-process), on as many nodes as lprl plan says")
