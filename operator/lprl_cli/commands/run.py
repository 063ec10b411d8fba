"""`lprl run`: a job's whole life on this machine."""

import argparse
import json
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lprl_api.derived.run_folder import steps_of
from lprl_api.errors import UserError
from lprl_cli import again, exits, sandboxes
from lprl_cli.checked import checked_job
from lprl_cli.live import printable
from lprl_cli.manifest import load_one
from lprl_cli.runfolder import RunFolder, run_folder_of


def epilog(_: str) -> str:
    """Examples for --help."""
    return (
        "examples:\n"
        "  lprl run job.yaml                          state in runs/NAME, claims as folders below ./volumes\n"
        "  lprl run job.yaml --volumes /data          claim `models` is /data/models\n"
        "  lprl run job.yaml --restart                start over; what was there is moved aside, not deleted\n"
        "  lprl run job.yaml --sandbox 'python=python tool.py {port}'    a process for every episode that calls the tool\n\n"
        "Killed, interrupted or failed, the same command goes on from the last checkpoint, also with a corrected manifest. One that would\n"
        "train something else than the checkpoint holds is refused. Secrets are files: STATE_DIR/secrets/NAME/KEY.\n\n" + exits.TABLE
    )


def add_arguments(parser: argparse.ArgumentParser, _: str) -> None:
    """Add this command's arguments."""
    parser.add_argument("file", metavar="FILE", help="manifest, or - for standard input")
    parser.add_argument("--name", help="which job, when the file holds several")
    parser.add_argument("--state-dir", metavar="DIR", help="state of the run; default runs/NAME")
    parser.add_argument("--volumes", metavar="DIR", default="volumes", help="claim X is the folder DIR/X; default volumes")
    parser.add_argument("--secrets", metavar="DIR", help="Secrets as files DIR/NAME/KEY; default STATE_DIR/secrets")
    parser.add_argument("--restart", action="store_true", help="start over; the old state and run folder are moved aside")
    parser.add_argument("--sandbox", metavar="POOL=COMMAND", action="append", default=[], help=sandboxes.HELP)
    parser.add_argument("--plain", action="store_true", help="lines instead of a live table")
    parser.add_argument("--no-report", action="store_true", help="no HTML report at the end")


def run(args: argparse.Namespace) -> int:
    """Run the job of a file."""
    document = load_one(args.file, args.name)
    checked_job(document)
    return run_document(document.document, args)


def run_document(document: Mapping[str, Any], args: argparse.Namespace) -> int:
    """Run a checked manifest; `args` holds state_dir, volumes, secrets, restart, sandbox, plain and no_report."""
    from lprl_operator.places.local.cluster import LocalCluster
    from lprl_operator.places.local.folders import Folders

    name = document["metadata"]["name"]
    state, volumes = Path(args.state_dir or Path("runs") / name), Path(args.volumes)
    folders = Folders.of(state, volumes, Path(args.secrets) if args.secrets else None)
    _check_claims(document, folders.volumes)
    commands = sandboxes.commands_of(args.sandbox, document)
    found = RunFolder(folders.state, run_folder_of(document, folders.volumes), folders.volumes)
    signal.signal(signal.SIGTERM, _interrupt)
    with LocalCluster(folders) as cluster:
        if args.restart:
            again.set_aside(found, run_too=True)
        elif _begin(found, document):
            return finish(found, report=not args.no_report)
        folders.state.mkdir(parents=True, exist_ok=True)
        (folders.state / "requests.json").unlink(missing_ok=True)
        sandboxes.write(folders.sandboxes, commands)
        (folders.state / "local.json").write_text(json.dumps({"volumes": str(folders.volumes)}))
        cluster.submit(document)
        _supervise(cluster, found, args.plain)
    return finish(found, report=not args.no_report)


def _begin(found: RunFolder, document: Mapping[str, Any]) -> bool:
    """Say how this run begins and make room for it; returns whether nothing is left to do."""
    way = again.way(found, document)
    if way.words:
        print(way.words)
    if way.how == "anew":
        print(f"state of the earlier run: {again.set_aside(found, run_too=False)}")
    return way.how == "finished"


def _supervise(cluster: Any, found: RunFolder, plain: bool) -> None:
    from lprl_cli.live import make_view
    from lprl_cli.supervise import Supervisor
    from lprl_operator.decide.observed import Key

    meta = found.job()["metadata"]
    view = make_view(plain)
    rows = _Rows(found)
    try:
        Supervisor(cluster, Key(meta["namespace"], meta["name"])).run(lambda document: view.update(document, rows.read()))
    except KeyboardInterrupt:
        view.close()
        print("interrupted; the same command goes on from the last checkpoint")
        raise
    finally:
        view.close()


class _Rows:
    """Metric rows of the run, read again only when the file changed."""

    def __init__(self, found: RunFolder) -> None:
        self._found = found
        self._size = -1
        self._rows: list[dict[str, Any]] = []

    def read(self) -> list[dict[str, Any]]:
        """Return all rows."""
        path = self._found.run / "metrics.jsonl"
        size = path.stat().st_size if path.exists() else 0
        if size != self._size:
            self._size, self._rows = size, self._found.rows("metrics.jsonl")
        return self._rows


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _check_claims(document: Mapping[str, Any], volumes: Path) -> None:
    """Say which folders stand for the claims a job reads from, before anything starts."""
    spec = document["spec"]
    for field, source in (("spec.model.source", spec["model"]["source"]), ("spec.data.prompts", spec["data"]["prompts"])):
        if "volume" not in source:
            continue
        claim = spec["volumes"][source["volume"]]["persistentVolumeClaim"]
        path = volumes / claim / source["path"]
        if not path.exists():
            raise UserError(
                f"{field}: {source['volume']}:{source['path']} is not on this machine ({path})",
                f"put it there, or pass --volumes DIR, where DIR/{claim} is claim {claim}",
            )


def finish(found: RunFolder, report: bool) -> int:
    """Print where everything is, or why the run failed; returns the exit code."""
    status = found.status()
    phase = status.get("phase", "Pending")
    lines: list[tuple[str, object]] = []
    training = status.get("training") or {}
    if training.get("checkpoint"):
        lines.append(("checkpoint", found.local(training["checkpoint"]["path"])))
    if training.get("export"):
        lines.append(("export", found.local(training["export"])))
    if (found.run / "metrics.jsonl").exists():
        lines.append(("metrics", found.run / "metrics.jsonl"))
        if report:
            from lprl_cli.report.page import write_report

            lines += list(write_report(found).items())
    lines.append(("state, logs", found.state))
    print(f"\n{found.name}: {phase}  {printable(status.get('message'))}".rstrip())
    for label, value in lines:
        print(f"  {label:<13} {value}")
    if phase == "Failed":
        _print_failure(found, status)
        return exits.JOB_FAILED
    return exits.SUSPENDED if phase == "Suspended" else exits.OK


LOGS = "`lprl logs {state}` shows what the processes wrote"
REMEDIES = {
    "UserError": "correct what it names, then {again}",
    "InvalidSpec": "correct the fields named (`lprl validate FILE` shows them with their lines), then {again}",
    "ShapeMismatch": "correct the fields named: they do not fit the model that was found; then {again}",
    "DoesNotFit": "`lprl plan FILE` shows what would fit; change it, then {again}",
    "StorageFull": "free space on the volume named, then {again}",
    "OutOfMemory": "make what it names smaller, then {again}",
    "RepeatedFailure": f"{LOGS}, with the traceback; correct what it names, then {{again}}",
    "RestartsExhausted": f"{LOGS}; solve the last failure, or raise failurePolicy.maxRestarts if it was chance, then {{again}}",
    "ConversionFailed": f"{LOGS}; correct what it names, then {{again}}: shards that are done are kept",
    "InspectionFailed": f"{LOGS}; correct what it names, then {{again}}",
    "DeadlineExceeded": "raise activeDeadlineSeconds, then {again}",
}
"""By reason of the failure. None of them starts over: checkpoints stay."""


def remedy_of(reason: str, state: Path | None, step: int | None) -> str:
    """Return what to do about a failed run whose newest checkpoint is of `step`."""
    text = REMEDIES.get(reason, f"{LOGS}; docs/failure-modes.md explains every reason; then {{again}}")
    goes_on = f"it goes on from step {step}" if step is not None else "no checkpoint was made, it starts at step 0"
    return text.format(again=f"run the same command again ({goes_on})", state=state)


def _print_failure(found: RunFolder, status: Mapping[str, Any]) -> None:
    failed = next((c for c in status.get("conditions", ()) if c["type"] == "Failed" and c["status"] == "True"), None)
    reason = failed["reason"] if failed else "Unknown"
    sys.stdout.flush()  # what was printed above comes first where both streams go to one place
    print(f"error: {reason}: {printable(failed['message'] if failed else status.get('message', ''))}", file=sys.stderr)
    step = max(steps_of(found.run), default=None)
    print(f"  fix: {remedy_of(reason, found.state, step)}", file=sys.stderr)
