"""The Hugging Face folders a finished run leaves in RUN/export, made by the converter from the last checkpoint."""

from lprl_api.derived.run_folder import step_name
from lprl_api.model.formats.chosen import export_format
from lprl_api.wire.runconfig import RunConfig
from lprl_workload.config import ResolvedPaths
from lprl_workload.convert.export import export_checkpoint
from lprl_workload.launch.backends import threads


def export_all(run: RunConfig, paths: ResolvedPaths, step: int) -> list[str]:
    """Write every folder of checkpoint.exportFormats from the checkpoint of `step`; returns their names.

    A folder under its final name is whole. Exports of an earlier end of the run (the job was given more steps) are replaced.
    """
    is_moe = run.shape.moe is not None
    wanted = [(name, export_format(run.precision, name, is_moe)) for name in dict.fromkeys(run.checkpoint.export_formats)]
    return list(export_checkpoint(paths.run / step_name(step), paths.run / "export", wanted, threads()))
