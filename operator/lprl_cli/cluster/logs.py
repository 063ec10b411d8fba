"""`logs` of a job in a cluster: finds the pod and container, then asks the API server for its log."""

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from lprl_api import names
from lprl_api.errors import UserError
from lprl_cli import exits
from lprl_cli.cluster.connection import Connection, Document, connect, said
from lprl_cli.cluster.pods import Source, choose, sources
from lprl_cli.cluster.table import age, aligned
from lprl_operator.decide.observed import ObjectRef
from lprl_operator.kube import paths
from lprl_operator.kube.api import ApiError, Unavailable

LIMIT_BYTES = 32 * 1024 * 1024
"""Of what is printed without --follow or --tail all."""
IDLE_S = 60.0
"""Of an answer that is not followed."""
SILENCE_S = 600.0
"""A followed log may be silent this long before the connection is made anew."""
RETRY_S = 2.0
GIVE_UP_S = 300.0
CONVERSIONS = f"{names.LABEL_ROLE} in (convert,finalise)"


def run(args: argparse.Namespace) -> int:
    """Print a log, or which there are."""
    connection = connect(args)
    document = connection.job(args.run_folder)
    found = sources(job_pods(connection, document))
    if args.list:
        return _list(found, args.run_folder)
    source = choose(found, document, args.role, args.attempt, args.match)
    if not source.node:  # the API server gives an empty log of such a pod
        raise UserError(
            f"{source.name} has no node yet", f"`kubectl lprl status {args.run_folder} -n {connection.namespace}` says what it waits for"
        )
    alike = sum(s.role == source.role and s.attempt == source.attempt and s.pod != source.pod for s in found)
    more = f", one of {alike + 1}: a text in POD/CONTAINER behind the name picks another" if alike else ""
    print(f"==> {source.name} ({source.state}{more}) <==", file=sys.stderr)
    query = request(source, args.tail, args.previous, args.follow)
    if args.follow:
        _follow(connection, source, query)
    elif _print(_stream(connection, source, query, IDLE_S)) >= LIMIT_BYTES and args.tail != "all":
        print(f"==> cut after {LIMIT_BYTES >> 20} MiB; --tail N for fewer lines, --tail all for everything <==", file=sys.stderr)
    return exits.OK


def job_pods(connection: Connection, document: Document) -> list[Document]:
    """Return the pods a job has now: its own, and those of conversions it owns a share of."""
    mine = connection.list("v1", "Pod", f"{names.LABEL_JOB}={document['metadata']['name']}")
    uid = document["metadata"]["uid"]
    keys = ((document.get("status") or {}).get("conversion") or {}).get("contentKeys") or ()
    # A label holds 63 characters of the key.
    selector = CONVERSIONS + (f",{names.LABEL_CONTENT_KEY} in ({','.join(k[:63] for k in keys)})" if keys else "")
    jobs = connection.list("batch/v1", "Job", selector)
    converts = _owned(jobs, {uid})
    if not converts:
        return mine
    finalises = _owned(jobs, {job["metadata"]["uid"] for job in converts})
    theirs = connection.list("v1", "Pod", selector)
    return [*mine, *_owned(theirs, {job["metadata"]["uid"] for job in (*converts, *finalises)})]


def _owned(found: list[Document], by: set[str]) -> list[Document]:
    return [d for d in found if any(o.get("uid") in by for o in d["metadata"].get("ownerReferences") or ())]


def request(source: Source, tail: str, previous: bool, follow: bool) -> dict[str, str]:
    """Return the query of a log."""
    found = {"container": source.container}
    if tail != "all":
        found["tailLines"] = tail
    if previous:
        found["previous"] = "true"
    if follow:
        found["follow"] = "true"
    elif tail != "all":
        found["limitBytes"] = str(LIMIT_BYTES)
    return found


def _list(found: list[Source], name: str) -> int:
    if not found:
        print(f"no pod of {name} is there", file=sys.stderr)
        return exits.OK
    now = datetime.now(UTC)
    rows = [(s.name, s.role, str(s.attempt or "-"), s.state, str(s.restarts), age(s.created, now), s.node or "-") for s in found]
    print("\n".join(aligned([("POD/CONTAINER", "ROLE", "ATTEMPT", "STATE", "RESTARTS", "AGE", "NODE"), *rows])))
    return exits.OK


def _stream(connection: Connection, source: Source, query: dict[str, str], idle_s: float) -> Iterator[bytes]:
    path = paths.item(ObjectRef("v1", "Pod", connection.namespace, source.pod)) + "/log"
    try:
        yield from connection.api.stream(path, query, idle_s)
    except ApiError as error:
        raise explained(connection, source, error) from None


def explained(connection: Connection, source: Source, error: ApiError) -> UserError:
    """Return why a log cannot be had."""
    text = said(error.message)
    if (error.status == 400 and "waiting to start" in text) or "PodInitializing" in text:
        return UserError(f"{source.name} has not started: {text}", "`status NAME` says what it waits for; try again when it runs")
    if error.status == 400 and "previous terminated container" in text:
        return UserError(
            f"{source.name} was not restarted: there is no log of before",
            "leave out --previous; --attempt N shows an earlier attempt while its pods are there",
        )
    if error.status >= 500:
        return UserError(
            f"the kubelet of node {source.node or '(none yet)'} does not give the log of {source.name}: {text}",
            "see `kubectl get node`; logs live on the pod's node",
        )
    return connection.explained(error, f"pod {source.pod}")


def _print(blocks: Iterator[bytes], heard: Callable[[], None] = lambda: None) -> int:
    size = 0
    for block in blocks:
        sys.stdout.buffer.write(block)
        sys.stdout.buffer.flush()
        size += len(block)
        heard()
    return size


def _follow(connection: Connection, source: Source, query: dict[str, str]) -> None:
    """Print a log until its container ends. A lost connection is made anew; a line may come twice, none is left out."""
    last, started = time.monotonic(), False
    lost: float | None = None

    def heard() -> None:
        nonlocal last, lost, started
        last, lost, started = time.monotonic(), None, True

    path = paths.item(ObjectRef("v1", "Pod", connection.namespace, source.pod))
    while True:
        try:
            _print(connection.api.stream(f"{path}/log", query, SILENCE_S), heard)
            started = True
            if _ended(connection.api.get(path), source):
                return
        except Unavailable as error:
            lost = time.monotonic() if lost is None else lost
            started = started or error.reason == "ReadTimeoutError"
            if not started or time.monotonic() - lost > GIVE_UP_S:
                raise explained(connection, source, error) from None
            print(f"==> connection lost ({error.reason}); going on <==", file=sys.stderr)
        except ApiError as error:
            if error.status == 404 and started:
                return  # deleted while we watched: the log ended with its pod
            raise explained(connection, source, error) from None
        time.sleep(RETRY_S)
        query = {k: v for k, v in query.items() if k not in ("tailLines", "previous")}
        query["sinceSeconds"] = str(math.ceil(time.monotonic() - last) + 1)


def _ended(pod: Document, source: Source) -> bool:
    mine = [s for s in sources([pod]) if s.container == source.container]
    return not mine or mine[0].exit_code is not None or (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
