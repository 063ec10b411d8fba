"""Subcommands of conversion: parse options, call one function, print what a person wants to know.

Each returns an exit code and lets errors out; `termination.run_guarded` turns those into exit codes, messages and remedies.
What works with weights is imported when the command line is known to be right: torch takes seconds.
"""

import os
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

from lprl_api.catalog.servable import folder_warnings
from lprl_api.errors import UserError
from lprl_api.model.formats import WeightFormat
from lprl_api.model.look import Look
from lprl_api.model.model_shape import Inspection, ModelShape
from lprl_api.names import ExitCode, Reason
from lprl_api.wire.runconfig import ConvertConfig
from lprl_workload.config import load_contract
from lprl_workload.convert.console import ProgressLine
from lprl_workload.convert.disk import human_bytes
from lprl_workload.convert.files import REPORT_TABLE
from lprl_workload.convert.options import ALIASES, KINDS, check_options, config_option, format_options, weight_format
from lprl_workload.process.arguments import count, parser, positive_number
from lprl_workload.process.cpus import available_cpus
from lprl_workload.process.loading import loading
from lprl_workload.process.termination import write_termination

INDEX_ENV = "JOB_COMPLETION_INDEX"


def print_notes(inspection: Inspection | Look) -> None:
    """Say on stderr what of the folder is not its model, and why."""
    for note in inspection.notes:
        print(f"note: {note}", file=sys.stderr)


def convert_command(argv: Sequence[str]) -> int:
    """Convert one worker's shards."""
    options = parser(
        "convert",
        "Convert the shards INDEX, INDEX + workers, ... of a source. Finished shards are skipped, so a killed worker is simply run\n"
        "again. When the target exists already, this worker's share of its digests is checked instead.",
        "  python -m lprl_workload convert --config convert.json --index 0",
    )
    config_option(options, "ConvertConfig")
    default = os.environ.get(INDEX_ENV)
    options.add_argument("--index", type=int, default=default, metavar="I", help=f"this worker's number from 0; default ${INDEX_ENV}")
    options.add_argument("--progress", choices=("text", "json"), default="text", help="text on stderr, or JSON lines on stdout")
    options.add_argument(
        "--folders", nargs=2, type=Path, metavar=("SOURCE", "TARGET"), help="folders of this machine instead of the configuration's volumes"
    )
    chosen = options.parse_args(argv)
    config = load_contract(chosen.config, ConvertConfig)
    if chosen.index is None or chosen.index < 0:
        raise UserError(f"--index: got {chosen.index}; needs a number from 0 to {config.workers - 1}", f"pass --index or set {INDEX_ENV}")
    with loading(keep=True):
        from lprl_workload.convert.job import run_worker
    line = ProgressLine(as_json=chosen.progress == "json")
    folders = (chosen.folders[0], chosen.folders[1]) if chosen.folders else None
    result = run_worker(config, chosen.index, line.download, line.shards, folders)
    line.close()
    done = "checked, converted before" if result.reused else f"converted, {human_bytes(result.output_bytes)}"
    write_termination(Reason.CONVERSION_REUSED if result.reused else Reason.CONVERTING, f"{result.shards} shards {done}")
    return ExitCode.OK


def _convert_all_options() -> ArgumentParser:
    options = parser(
        "convert-all",
        "Convert a model folder on this machine: inspect, N processes with one progress line, finalise. Work goes on in\n"
        "TARGET.partial; stopped or killed, the same command goes on, and no finished shard is redone.",
        "  python -m lprl_workload convert-all models/Qwen3-4B models/Qwen3-4B-FP8 --to fp8-block\n"
        "  python -m lprl_workload convert-all Qwen3-30B-A3B Qwen3-30B-A3B-INT4 --to int4-group --group-size 128 --workers 4\n"
        "  python -m lprl_workload convert-all Kimi-K2-Thinking Kimi-K2-BF16 --to bf16      (back from FP8 or INT4)",
    )
    options.add_argument("source", type=Path, metavar="SOURCE", help="Hugging Face model folder of safetensors")
    options.add_argument("target", type=Path, metavar="TARGET", help="folder to make; it appears complete or not at all")
    options.add_argument("--to", choices=(*KINDS, *ALIASES), required=True, help="format of the result")
    format_options(options)
    options.add_argument("--workers", type=count, default=1, metavar="N", help="processes; more than there are shards is no use; default 1")
    options.add_argument("--threads", type=count, metavar="N", help="CPU threads of one process; default: all, divided by --workers")
    options.add_argument("--max-error", type=positive_number, metavar="X", help="refuse when a tensor's relative RMS error is above X")
    return options


def convert_all_command(argv: Sequence[str]) -> int:
    """Inspect, convert with several processes and publish, on this machine."""
    chosen = _convert_all_options().parse_args(argv)
    check_options([chosen.to], chosen)
    with loading(keep=True):
        from lprl_workload.convert.convert_all import WorkersFailed, convert_all
        from lprl_workload.convert.exclusions import check_exclusions
        from lprl_workload.convert.inspect import look_at
        from lprl_workload.convert.places import check_places
        from lprl_workload.convert.report import summary
    source, target = chosen.source.absolute(), chosen.target.absolute()
    check_places(source, target)
    looked = look_at(source)
    print_notes(looked)
    fmt = weight_format(chosen.to, chosen, looked.routed > 0 if isinstance(looked, Look) else looked.shape.moe is not None)
    check_exclusions(chosen.exclude, source)
    if isinstance(looked, Inspection):
        warn(looked.shape, fmt)
    threads = chosen.threads or max(1, available_cpus() // chosen.workers)
    line = ProgressLine()
    try:
        convert_all(source, target, fmt, looked.fingerprint, chosen.workers, threads, chosen.max_error, line)
    except WorkersFailed as error:
        return error.code
    finally:
        line.close()
    print(f"{summary((target / REPORT_TABLE).read_text())}\n{target}: complete")
    return ExitCode.OK


def warn(shape: ModelShape, fmt: WeightFormat) -> None:
    """Tell what SGLang cannot serve, before hours are spent on it."""
    for text in folder_warnings(shape, fmt):
        print(f"warning: {text}", file=sys.stderr)
