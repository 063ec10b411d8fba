"""`python -m lprl_workload inspect`: what a source is and, for a job, whether all it needs besides is there.

Everything that can be known before a conversion or a cluster is said here, all at once: this pod runs the image of the workers
and mounts every volume.

A folder of a family with a table is inspected without torch, which takes seconds to come: what needs it is imported where it is needed.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from lprl_api.errors import StorageFullError, UserError
from lprl_api.model.look import Look
from lprl_api.model.model_shape import Inspection
from lprl_api.names import ExitCode
from lprl_api.wire.runconfig import InspectConfig
from lprl_workload.config import load_contract, resolve
from lprl_workload.convert.cli import print_notes
from lprl_workload.convert.console import ProgressLine
from lprl_workload.convert.inspect import inspect_folder, inspection_message, look_at
from lprl_workload.convert.source import resolve_source
from lprl_workload.folder.config import check_trainable
from lprl_workload.process.arguments import parser
from lprl_workload.process.loading import loading
from lprl_workload.process.termination import write_message

T = TypeVar("T")
RULE_SAMPLE = 8
"""INT4 tensors that inspect re-quantises to say how foreign they are."""


def inspect_command(argv: Sequence[str]) -> int:
    """Inspect a source: download it where it is remote, print its Inspection and write it as the termination message."""
    options = parser(
        "inspect",
        "Read config.json and every safetensors header of a model (downloading it first when it is remote) and print, as one JSON\n"
        "document, its shape, fingerprint, size and own precision. The document is the termination message too. In a job, it also\n"
        "checks backends, prompts, reward function, the checkpoint to load from and the checkpoint folder, and says all that is wrong.",
        "  python -m lprl_workload inspect --config inspect.json\n  python -m lprl_workload inspect --folder models/Qwen3-4B",
    )
    place = options.add_mutually_exclusive_group(required=True)
    place.add_argument("--config", type=Path, metavar="FILE", help="InspectConfig as JSON, as the operator renders it")
    place.add_argument("--folder", type=Path, metavar="FOLDER", help="a Hugging Face model folder on this machine")
    chosen = options.parse_args(argv)
    if chosen.config is None:
        looked = look_at(chosen.folder)
        if isinstance(looked, Look):
            print(looked.model_dump_json(by_alias=True))
            print_notes(looked)
            return ExitCode.OK
        folder, inspection = chosen.folder, looked
    else:
        folder, inspection = inspect_job(load_contract(chosen.config, InspectConfig))
    message = inspection_message(inspection)
    print(message)
    print_notes(inspection)
    print(_foreign(folder, inspection), end="", file=sys.stderr)  # stdout is one JSON document
    write_message(message)
    return ExitCode.OK


def inspect_job(config: InspectConfig) -> tuple[Path, Inspection]:
    """Return a source's folder and inspection; raises UserError with everything that is wrong with it and with what the job needs."""
    found = Problems()
    check = config.preflight
    if check is not None:
        with loading(keep=True):
            from lprl_workload.launch import preflight
        found.of(*preflight.places(check))
        if config.source.volume is None:
            found.tell()  # before anything is downloaded
    line = ProgressLine()
    place = found.result(lambda: resolve_source(config.source, line.download))
    line.close()
    folder = place or found.settled(place)
    free_at = resolve(config.free_space_at) if config.free_space_at is not None else None
    inspection = found.result(lambda: inspect_folder(folder, config.volume_identity, free_at))
    found.of(lambda: check_trainable(folder))
    if check is not None:
        found.of(*preflight.inputs(check, folder, inspection.shape if inspection is not None else None))
        if inspection is not None:
            found.of(lambda: preflight.check_load_from(check, inspection.shape))
    known = found.settled(inspection)
    return folder, known.model_copy(update={"earlier": preflight.earlier_run(check)}) if check is not None else known


class Problems:
    """Wrong input, collected: whoever corrects one thing should not come back for the next."""

    def __init__(self) -> None:
        self._errors: list[UserError] = []

    def of(self, *checks: Callable[[], object]) -> None:
        """Run checks; a full volume is no mistake and passes through."""
        for check in checks:
            self.result(check)

    def result(self, make: Callable[[], T]) -> T | None:
        """Return what `make` makes, None when its input is wrong."""
        try:
            return make()
        except StorageFullError:
            raise
        except UserError as error:
            if error.message not in [e.message for e in self._errors]:
                self._errors.append(error)
            return None

    def settled(self, made: T | None) -> T:
        """Return what was made, once nothing is wrong."""
        self.tell()
        assert made is not None, "what is not made has an error"
        return made

    def tell(self) -> None:
        """Raise what was found: one error as it is, several numbered in one line."""
        if len(self._errors) == 1:
            raise self._errors[0]
        if self._errors:
            told = [f"({n}) {e.message}; {e.remedy}" if e.remedy else f"({n}) {e.message}" for n, e in enumerate(self._errors, 1)]
            raise UserError(f"{len(told)} problems: {' '.join(told)}", "correct all of them; nothing was converted and no cluster was made")


def _foreign(folder: Path, inspection: Inspection) -> str:
    """Return how much of a source's INT4 the own rule would change, sampled; nothing for other sources."""
    if inspection.quantization.format != "int4-group":
        return ""
    with loading(keep=True):
        from lprl_workload.convert.verify import rule_difference
        from lprl_workload.convert.weights import ModelFolder
    found = rule_difference(ModelFolder(folder), limit=RULE_SAMPLE)
    share = found.changed_values / max(found.values, 1)
    return (
        f"re-quantising {RULE_SAMPLE} tensors by the own INT4 rule changes {share:.2%} of the values "
        f"(relative RMS {found.relative_rms:.2e}), with int4.grid source {found.changed_on_its_grid / max(found.values, 1):.2%}; "
        f"{found.codes_minus_8} codes are -8\n"
    )
