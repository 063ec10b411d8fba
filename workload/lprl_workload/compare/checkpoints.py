"""`verify` of a run folder or one of its steps: every byte of every checkpoint against what its writers hashed."""

import json
from collections.abc import Sequence
from pathlib import Path

from lprl_api.derived.run_folder import step_name, steps_of
from lprl_api.errors import UserError
from lprl_api.names import ExitCode
from lprl_workload.checkpoint.manifest import MANIFEST, Damage, verify
from lprl_workload.convert.disk import human_bytes

TRAINER = "trainer"


def checkpoints_in(folder: Path) -> list[Path]:
    """Return the checkpoints that are meant by a step folder or a run folder, oldest first; none for anything else."""
    if (folder / TRAINER).is_dir() and (folder / MANIFEST).is_file():
        return [folder]
    return [folder / step_name(step) for step in steps_of(folder)]


def verify_checkpoints(steps: Sequence[Path], output: str) -> int:
    """Hash everything and print a line (or a JSON object) for each; raises UserError when one is damaged. Changes nothing."""
    damaged: list[Damage] = []
    found = []
    for step in steps:
        verdict = verify(step, "full")
        if isinstance(verdict, Damage):
            damaged.append(verdict)
            found.append({"checkpoint": step.name, "intact": False, "reason": verdict.reason})
            text = f"damaged: {verdict.reason}"
        else:
            nbytes = sum(record.nbytes for record in verdict.files)
            found.append({"checkpoint": step.name, "intact": True, "files": len(verdict.files), "bytes": nbytes})
            text = f"intact: {len(verdict.files)} files, {human_bytes(nbytes)}"
        if output == "table":
            print(f"{step.name}  {text}", flush=True)
    if output == "json":
        print(json.dumps(found, indent=1))
    if damaged:
        raise UserError(f"{damaged[0].folder}: {damaged[0].reason}", "a job goes on from the newest intact one")
    return ExitCode.OK
