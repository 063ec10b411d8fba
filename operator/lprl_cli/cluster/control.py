"""`suspend` and `resume` of a job in a cluster: one field of its spec."""

import argparse

from lprl_api.errors import UserError
from lprl_api.wire.status import Phase
from lprl_cli import exits
from lprl_cli.cluster.connection import connect
from lprl_cli.cluster.table import phase


def run(args: argparse.Namespace) -> int:
    """Set spec.suspend."""
    if args.command == "stop":
        raise UserError(
            "a job in a cluster is not stopped",
            f"kubectl lprl suspend {args.run_folder} keeps it, kubectl delete lprljob {args.run_folder} ends it",
        )
    connection, name, wanted = connect(args), args.run_folder, args.command == "suspend"
    document = connection.job(name)
    now = phase(document)
    if now in (Phase.SUCCEEDED, Phase.FAILED):
        raise UserError(f"{name} has ended ({now}); there is nothing to {args.command}", "apply it under another name to run it again")
    if bool(document["spec"].get("suspend")) == wanted:
        print(f"{name}: {'already asked to suspend' if wanted else 'not suspended'} ({now})")
        return exits.OK
    connection.patch_job(name, {"spec": {"suspend": wanted}})
    follow = f"kubectl lprl status {name} -n {connection.namespace} --watch"
    print(f"{name}: {'asked to checkpoint and stop' if wanted else 'asked to go on from its last checkpoint'}; `{follow}` shows it")
    return exits.OK
