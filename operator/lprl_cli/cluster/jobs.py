"""Jobs as they are and as they change: a list, then a watch; when that ends, from the start again."""

import json
import time
from collections.abc import Callable, Iterator

from lprl_api import names
from lprl_cli.cluster.connection import LIST_LIMIT, Connection, Document, checked_name
from lprl_operator.kube import paths
from lprl_operator.kube.api import ApiError, Unavailable

WATCH_S = 240
"""A watch is asked to end after this and made anew."""
IDLE_S = 90.0
"""Bookmarks come about once a minute: a connection that brings nothing for longer is dead."""
RECONNECT_S = 2.0
GIVE_UP_S = 600.0
REFUSED_S = 60.0
"""A server that has just started refuses what it allowed before: its roles and kinds come a moment later."""
MAX_EVENT_BYTES = 16 * 1024 * 1024
GONE = 410
Jobs = dict[tuple[str, str], Document]


class Ended(Exception):
    """The watch is over: list again."""


def read_jobs(connection: Connection, name: str | None, everywhere: bool) -> tuple[Jobs, str, int]:
    """Return jobs by (namespace, name), the list's resourceVersion, and how many more there are (-1: some).

    Raises:
        ApiError: the API server refused.

    """
    asked = {"limit": str(LIST_LIMIT), **_one(name)}
    found = connection.api.get(paths.collection(names.API_VERSION, names.KIND, None if everywhere else connection.namespace), **asked)
    meta = found.get("metadata") or {}
    more = int(meta.get("remainingItemCount") or -1) if meta.get("continue") else 0
    return {_key(d): _whole(d) for d in found.get("items") or ()}, str(meta.get("resourceVersion", "")), more


def follow(
    connection: Connection,
    name: str | None,
    everywhere: bool,
    pause: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
    lost: Callable[[str], None] = lambda _: None,
) -> Iterator[Jobs]:
    """Yield all jobs now and after every change, for as long as the caller wants. Never asks faster than every RECONNECT_S.

    Raises:
        UserError: refused, no answer at the start, or none for GIVE_UP_S later on.

    """
    silent_since: float | None = None
    started_well = False
    while True:
        began = clock()
        try:
            found, version, _ = read_jobs(connection, name, everywhere)
            started_well, silent_since = True, None
            yield dict(found)
            for event in _watch(connection, name, everywhere, version):
                _apply(found, event)
                yield dict(found)
        except ApiError as error:
            if error.status != GONE and error.reason != "ReadTimeoutError":
                if silent_since is None and started_well:
                    lost(f"no answer from the API server ({error.reason}); trying again")
                silent_since = clock() if silent_since is None else silent_since
                patience = GIVE_UP_S if isinstance(error, Unavailable) else REFUSED_S
                if not started_well or clock() - silent_since > patience:
                    raise connection.explained(error, "jobs") from None
        except Ended:
            pass
        pause(max(0.0, RECONNECT_S - (clock() - began)))


def _watch(connection: Connection, name: str | None, everywhere: bool, version: str) -> Iterator[Document]:
    path = paths.collection(names.API_VERSION, names.KIND, None if everywhere else connection.namespace)
    asked = {"watch": "1", "resourceVersion": version, "allowWatchBookmarks": "true", "timeoutSeconds": str(WATCH_S), **_one(name)}
    rest = b""
    for block in connection.api.stream(path, asked, IDLE_S):
        *lines, rest = (rest + block).split(b"\n")
        if len(rest) > MAX_EVENT_BYTES:
            raise Ended
        for line in filter(None, lines):
            event = json.loads(line)
            if event.get("type") == "ERROR":
                raise Ended
            if event.get("type") != "BOOKMARK":
                yield event


def _apply(jobs: Jobs, event: Document) -> None:
    document = _whole(event["object"])
    if event["type"] == "DELETED":
        jobs.pop(_key(document), None)
    else:
        jobs[_key(document)] = document


def _one(name: str | None) -> dict[str, str]:
    return {} if name is None else {"fieldSelector": f"metadata.name={checked_name(name)}"}


def _key(document: Document) -> tuple[str, str]:
    return str(document["metadata"]["namespace"]), str(document["metadata"]["name"])


def _whole(document: Document) -> Document:
    """Lists leave out what kind their items are."""
    return {"apiVersion": names.API_VERSION, "kind": names.KIND, **document}
