"""`status` of jobs in a cluster: once, or until they end."""

import argparse
import json
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Protocol

from lprl_api.errors import UserError
from lprl_cli import exits
from lprl_cli.cluster import jobs, table
from lprl_cli.cluster.connection import Connection, Document, connect
from lprl_operator.kube.api import ApiError

EVENTS_S = 5.0
"""Between two looks at a job's events."""
DRAWS_A_SECOND = 2


class Shown(Protocol):
    """Shows jobs while they change."""

    def update(self, documents: list[Document], events: list[Document]) -> None:
        """Show jobs; events of the one job that was named."""

    def close(self) -> None:
        """Give the terminal back."""


def run(args: argparse.Namespace) -> int:
    """Print the status of one job or of all."""
    connection = connect(args)
    if args.run_folder is not None and args.all_namespaces:
        raise UserError("-A shows the jobs of every namespace, a name is of one", "leave one of them out")
    if args.watch:
        return watch(connection, args)
    try:
        found, _, more = jobs.read_jobs(connection, args.run_folder, args.all_namespaces)
    except ApiError as error:
        raise connection.explained(error, "jobs") from None
    documents = list(found.values())
    if args.run_folder is not None and not documents:
        connection.job(args.run_folder)  # says that there is none, as for every other command
    if args.output != "table":
        print(written(documents if args.run_folder is None else documents[0], args.output), end="")
        return exits.OK
    if not documents:
        where = "any namespace" if args.all_namespaces else f"namespace {connection.namespace}"
        print(f"no jobs in {where}", file=sys.stderr)
        return exits.OK
    events = events_of(connection, documents[0]) if args.run_folder is not None else []
    print("\n".join(picture(documents, events, args.run_folder is not None, args.all_namespaces)))
    if more:
        print(f"{more if more > 0 else 'some'} more not shown; name one, or a namespace", file=sys.stderr)
    return exits.OK


def picture(documents: list[Document], events: list[Document], one: bool, namespaces: bool) -> list[str]:
    """Return the lines of one look."""
    now = datetime.now(UTC)
    found = table.lines(documents, now, namespaces)
    return found + (table.details(documents[0], events, now) if one and documents else [])


def written(value: Any, form: str) -> str:
    """Return documents as JSON or YAML, without the bookkeeping of field owners."""
    for document in value if isinstance(value, list) else [value]:
        document["metadata"].pop("managedFields", None)
        (document["metadata"].get("annotations") or {}).pop("kubectl.kubernetes.io/last-applied-configuration", None)
    if form == "json":
        return json.dumps(value, indent=2) + "\n"
    import yaml

    return str(yaml.safe_dump(value, sort_keys=False, explicit_start=True))


def events_of(connection: Connection, document: Document) -> list[Document]:
    """Return events about a job; none where they may not be read."""
    selector = f"involvedObject.uid={document['metadata']['uid']}"
    try:
        return connection.list("v1", "Event", fieldSelector=selector)
    except UserError as error:
        return [{"type": "-", "reason": "-", "message": error.message}]


def watch(connection: Connection, args: argparse.Namespace) -> int:
    """Show jobs until the named one ends, or until interrupted; the exit code says how it ended."""
    name: str | None = args.run_folder
    shown, told, told_at = view(args), [], -EVENTS_S
    seen = False
    try:
        for found in jobs.follow(connection, name, args.all_namespaces, lost=lambda text: print(text, file=sys.stderr)):
            documents = list(found.values())
            if name is not None and not documents:
                if seen:
                    raise UserError(f"job {name} was deleted", "its volumes and checkpoints are still there")
                connection.job(name)
            seen = seen or bool(documents)
            code = table.outcome(documents[0]) if name is not None and documents else None
            if name is not None and documents and (code is not None or time.monotonic() - told_at >= EVENTS_S):
                told, told_at = events_of(connection, documents[0]), time.monotonic()
            shown.update(documents, told)
            if code is not None:
                return code
    finally:
        shown.close()
    raise AssertionError("a job is followed until it ends")


def view(args: argparse.Namespace) -> Shown:
    """Return the table on a terminal, lines elsewhere, documents when asked for."""
    one, everywhere = args.run_folder is not None, args.all_namespaces
    if args.output != "table":
        return Documents(args.output)
    return Live(one, everywhere) if sys.stdout.isatty() else Plain(one, everywhere)


class Documents:
    """A JSON document a line, or a YAML document, for every change."""

    def __init__(self, form: str) -> None:
        self._form = form
        self._versions: dict[str, str] = {}

    def update(self, documents: list[Document], events: list[Document]) -> None:
        """Print what changed."""
        for document in documents:
            uid, version = document["metadata"]["uid"], document["metadata"]["resourceVersion"]
            if self._versions.get(uid) != version:
                self._versions[uid] = version
                text = written(document, self._form)
                print(json.dumps(json.loads(text), separators=(",", ":")) if self._form == "json" else text.rstrip("\n"), flush=True)

    def close(self) -> None:
        """Nothing to give back."""


class Plain:
    """A line for every change a reader would see; the details of a single job at its end."""

    def __init__(self, one: bool, namespaces: bool) -> None:
        self._one, self._namespaces = one, namespaces
        self._rows: dict[str, tuple[str, ...]] = {}
        self._last: Callable[[], list[str]] = list

    def update(self, documents: list[Document], events: list[Document]) -> None:
        """Print what is new."""
        now = datetime.now(UTC)
        if not self._rows and documents:
            print(self._line("NAMESPACE", table.HEAD))
        for document in documents:
            meta, cells = document["metadata"], table.row(document, now)
            said = cells[:-2] + cells[-1:]  # a job only grown older is no news
            if self._rows.get(meta["uid"]) != said:
                self._rows[meta["uid"]] = said
                print(self._line(meta["namespace"], cells), flush=True)
        if self._one and documents:
            document = documents[0]
            self._last = lambda: table.details(document, events, now)

    def _line(self, namespace: str, cells: tuple[str, ...]) -> str:
        return (f"{namespace:<16}  " if self._namespaces else "") + table.running_line(cells)

    def close(self) -> None:
        """Print the details last seen."""
        for line in self._last():
            print(line)


class Live:
    """The table, redrawn in place; ages move on by themselves."""

    def __init__(self, one: bool, namespaces: bool) -> None:
        from rich.live import Live as RichLive

        self._one, self._namespaces = one, namespaces
        self._now: tuple[list[Document], list[Document]] = ([], [])
        self._live = RichLive(get_renderable=self._render, refresh_per_second=DRAWS_A_SECOND)
        self._live.start()

    def update(self, documents: list[Document], events: list[Document]) -> None:
        """Show this from the next drawing on."""
        self._now = (documents, events)

    def _render(self) -> Any:
        from rich.console import Group
        from rich.text import Text

        documents, events = self._now
        if not documents:
            return Text("no jobs yet", style="dim")
        now = datetime.now(UTC)
        rows = Text("\n".join(table.lines(documents, now, self._namespaces)), no_wrap=True, overflow="ellipsis")
        return Group(rows, Text("\n".join(table.details(documents[0], events, now)))) if self._one else rows

    def close(self) -> None:
        """Leave the last table on the screen."""
        self._live.refresh()
        self._live.stop()
