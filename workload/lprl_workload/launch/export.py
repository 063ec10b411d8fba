"""Hugging Face folders of a checkpoint: those a finished run leaves in RUN/export, and those of `export` at any later time.

The converter and the model are imported by whoever exports: a driver may never, and a wrong command line needs neither.
"""

from collections.abc import Sequence
from pathlib import Path

from lprl_api.derived.run_folder import step_name
from lprl_api.model.formats.chosen import export_format
from lprl_api.names import ExitCode
from lprl_api.wire.runconfig import RunConfig
from lprl_workload.config import ResolvedPaths
from lprl_workload.convert.cli import warn
from lprl_workload.convert.console import ProgressLine
from lprl_workload.convert.options import ALIASES, KINDS, check_options, format_options, weight_format
from lprl_workload.folder.config import read_shape
from lprl_workload.folder.untrained import untrained_layers
from lprl_workload.process.arguments import count, parser
from lprl_workload.process.cpus import available_cpus
from lprl_workload.process.loading import loading


def export_all(run: RunConfig, paths: ResolvedPaths, step: int) -> list[str]:
    """Write every folder of checkpoint.exportFormats from the checkpoint of `step`; returns their names.

    A folder under its final name is whole. Exports of an earlier end of the run (the job was given more steps) are replaced.
    """
    if not run.checkpoint.export_formats:
        return []
    with loading():
        from lprl_workload.convert.export import export_checkpoint
        from lprl_workload.launch.backends import threads
        from lprl_workload.launch.trained_model import folder_with_model
    is_moe = run.shape.moe is not None
    wanted = [(name, export_format(run.precision, name, is_moe)) for name in dict.fromkeys(run.checkpoint.export_formats)]
    out = paths.run / "export"
    with folder_with_model(paths.run / step_name(step), out, paths.model) as model:
        return list(export_checkpoint(model, out, wanted, threads()))


def export_command(argv: Sequence[str]) -> int:
    """Export a training checkpoint."""
    options = parser(
        "export",
        "Write a training checkpoint as Hugging Face folders OUT/bf16, OUT/fp8-block, ... in one step, each with manifest.json.",
        "  python -m lprl_workload export runs/toy --out exports --formats bf16 fp8 int4      (newest complete step)\n"
        "  python -m lprl_workload export runs/toy/step-000120 --out exports --formats fp8",
    )
    options.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="run folder, step folder, or Hugging Face folder")
    options.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="folder the exports are put in")
    options.add_argument("--formats", nargs="+", choices=(*KINDS, *ALIASES), default=["bf16"], metavar="F", help=f"of {', '.join(KINDS)}")
    format_options(options)
    options.add_argument("--model", type=Path, metavar="FOLDER", help="model it was trained from; default: where the run had it")
    options.add_argument("--threads", type=count, metavar="N", help="CPU threads; default: all")
    chosen = options.parse_args(argv)
    check_options(chosen.formats, chosen)
    with loading(keep=True):
        from lprl_workload.convert.exclusions import check_exclusions
        from lprl_workload.convert.export import export_checkpoint, model_of
        from lprl_workload.launch.trained_model import folder_with_model
    with folder_with_model(chosen.checkpoint, chosen.out, chosen.model) as checkpoint:
        model = model_of(checkpoint)
        check_exclusions(chosen.exclude, model)
        shape = read_shape(model)
        formats = [(name, weight_format(name, chosen, shape.moe is not None)) for name in dict.fromkeys(chosen.formats)]
        for _, fmt in formats:
            warn(shape, fmt)
        line = ProgressLine()
        written = export_checkpoint(checkpoint, chosen.out, formats, chosen.threads or available_cpus(), line.shards)
        line.close()
        layers = untrained_layers(model)
    for name, folder in written.items():
        print(f"{name:<12} {folder}")
    if layers:
        print(f"layers {', '.join(map(str, layers))} (multi-token prediction) are those training started from: no trainer here trains them")
    return ExitCode.OK
