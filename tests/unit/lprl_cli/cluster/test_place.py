"""Here or in the cluster, and what is said when there is none."""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from lprl_api.errors import UserError
from lprl_cli import exits
from lprl_cli.cluster import jobs
from lprl_cli.cluster.connection import Connection, checked_name
from lprl_cli.cluster.place import command_first
from lprl_cli.main import main
from lprl_operator.kube.api import ApiError, Unavailable

PLUGIN = "/usr/local/bin/kubectl-lprl"
NOWHERE = """apiVersion: v1
kind: Config
current-context: here
contexts: [{name: here, context: {cluster: c, user: u, namespace: team}}, {name: other, context: {cluster: c, user: u}}]
clusters: [{name: c, cluster: {server: "http://127.0.0.1:9"}}]
users: [{name: u, user: {token: very-secret}}]
"""


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kubeconfig whose API server is not there."""
    path = tmp_path / "config"
    path.write_text(NOWHERE)
    monkeypatch.setenv("KUBECONFIG", str(path))
    monkeypatch.chdir(tmp_path)
    return path


ORDERS = [
    (["-n", "team", "status", "toy"], ["status", "-n", "team", "toy"]),
    (["--context=c", "-A", "status"], ["status", "--context=c", "-A"]),
    (["status", "-n", "team"], ["status", "-n", "team"]),
    (["--version"], ["--version"]),
    ([], []),
    (["-n"], ["-n"]),
]


@pytest.mark.parametrize(("given", "want"), ORDERS)
def test_cluster_options_may_come_first(given: list[str], want: list[str]) -> None:
    assert command_first(given) == want


PLACES = [
    pytest.param("lprl", ["status", "toy"], "no run there", id="lprl-is-local"),
    pytest.param("lprl", ["status", "toy", "-n", "team"], "no answer from the API server", id="a-namespace-is-a-cluster"),
    pytest.param("lprl", ["status", "-A"], "no answer from the API server", id="all-namespaces"),
    pytest.param("lprl", ["logs", "toy", "--context", "other"], "no answer from the API server", id="a-context-is-a-cluster"),
    pytest.param(PLUGIN, ["status"], "no answer from the API server", id="plugin"),
    pytest.param(PLUGIN, ["-n", "team", "metrics", "toy"], "no answer from the API server", id="plugin-metrics"),
    pytest.param(PLUGIN, ["plan", "toy"], "no answer from the API server", id="plugin-plan-of-a-name"),
    pytest.param(PLUGIN, ["suspend", "runs/toy"], "not the name of an object", id="plugin-takes-no-folder"),
    pytest.param(PLUGIN, ["status", "../secrets/x"], "not the name of an object", id="no-way-out-of-the-path"),
    pytest.param(PLUGIN, ["stop", "toy"], "kubectl lprl suspend toy", id="plugin-stops-nothing"),
    pytest.param(PLUGIN, ["status", "toy", "-A"], "leave one of them out", id="a-name-in-every-namespace"),
    pytest.param("lprl", ["logs", "runs/toy", "--role", "head"], "--role: for jobs in a cluster", id="role-of-a-local-run"),
    pytest.param("lprl", ["status", "--watch"], "--watch: for jobs in a cluster", id="watch-of-a-local-run"),
    pytest.param("lprl", ["status", "--context", "none"], "contexts: here, other", id="no-such-context"),
    pytest.param("lprl", ["status", "--kubeconfig", "/no/file"], "no kubeconfig at /no/file", id="no-kubeconfig"),
]


@pytest.mark.parametrize(("program", "line", "want"), PLACES)
def test_place(
    program: str, line: list[str], want: str, nowhere: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [program])
    assert main(line) == exits.USER_ERROR
    text = capsys.readouterr().err
    assert want in text
    assert len(text.splitlines()) == 2 and "Traceback" not in text and "very-secret" not in text


BROKEN = [("{", "line 1 is no YAML"), ("[]", "cannot be read as a kubeconfig"), ("", "empty"), ("users: [{token: very-secret}]", "")]


@pytest.mark.parametrize(("content", "want"), BROKEN)
def test_a_broken_kubeconfig_is_one_sentence_without_its_content(
    content: str, want: str, nowhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere.write_text(content)
    assert main(["status", "-n", "team"]) == exits.USER_ERROR
    text = capsys.readouterr().err
    assert want in text and str(nowhere) in text and "secret" not in text and len(text.splitlines()) == 2


@pytest.mark.parametrize("name", ["", "A", "a/b", "a?x", "a b", "-a", "é"])
def test_names_are_names(name: str) -> None:
    with pytest.raises(UserError):
        checked_name(name)


REFUSALS = [
    (ApiError(401, "Unauthorized", "Unauthorized"), "does not know who you are"),
    (ApiError(403, "Forbidden", 'jobs is forbidden: User "x" cannot list'), 'not permitted: jobs is forbidden: User "x"'),
    (ApiError(404, "NotFound", 'lowprecisionrljobs.lprl.dev "toy" not found'), "toy: not found in namespace team"),
    (ApiError(404, "NotFound", "404 page not found"), "CustomResourceDefinition"),
    (Unavailable(503, "ServiceUnavailable", "starting"), "answers 503"),
    (ApiError(422, "Invalid", "spec.x: wrong"), "spec.x: wrong"),
]


class FakeApi:
    """Plays lists and watches from a script: an exception is raised, anything else given."""

    host = "https://cluster"

    def __init__(self, lists: list[Any], streams: list[Any]) -> None:
        self.lists, self.streams = lists, streams

    def get(self, _path: str, **_query: str) -> Any:
        found = self.lists.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    def stream(self, _path: str, query: Mapping[str, str], _idle_s: float) -> Iterator[bytes]:
        assert query["resourceVersion"]
        for block in self.streams.pop(0):
            if isinstance(block, Exception):
                raise block
            yield block


def connection(lists: list[Any], streams: list[Any]) -> Connection:
    return Connection(FakeApi(lists, streams), "team", "here")  # type: ignore[arg-type]


@pytest.mark.parametrize(("error", "want"), REFUSALS)
def test_refusals_are_explained(error: ApiError, want: str) -> None:
    found = connection([], []).explained(error, "job toy")
    assert want in found.message and found.remedy


def listed(version: str, *phases: str) -> dict[str, Any]:
    return {"metadata": {"resourceVersion": version}, "items": [document(p) for p in phases]}


def document(phase: str) -> dict[str, Any]:
    return {"metadata": {"namespace": "team", "name": "toy"}, "status": {"phase": phase}}


def line(kind: str, phase: str) -> bytes:
    return json.dumps({"type": kind, "object": document(phase)}).encode() + b"\n"


def test_a_watch_is_made_anew_whatever_ends_it() -> None:
    gone = b'{"type":"ERROR","object":{"code":410}}\n'
    whole = line("MODIFIED", "P2")
    streams = [
        [whole[:20], whole[20:], b'{"type":"BOOKMARK","object":{}}\n'],  # the server ends it in its time; blocks are no lines
        [Unavailable(0, "ProtocolError", "reset")],
        [gone],
        [ApiError(410, "Expired", "too old")],
        [line("DELETED", "P9")],
    ]
    lists = [listed("1", "P1"), listed("3", "P3"), Unavailable(503, "x", "x"), listed("5", "P5"), listed("6", "P6"), listed("7", "P7")]
    pauses: list[float] = []
    said: list[str] = []
    now = [0.0]

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        now[0] += seconds

    following = jobs.follow(connection(lists, streams), "toy", False, pause=pause, clock=lambda: now[0], lost=said.append)
    phases = [next(iter(found.values()))["status"]["phase"] if found else "gone" for _, found in zip(range(7), following, strict=False)]
    assert phases == ["P1", "P2", "P3", "P5", "P6", "P7", "gone"]
    assert pauses == [jobs.RECONNECT_S] * 5
    assert len(said) == 1, "once an outage"


AWAY = [
    pytest.param(Unavailable(0, "NewConnectionError", "refused"), jobs.GIVE_UP_S, "no answer from the API server", id="no-answer"),
    pytest.param(ApiError(403, "Forbidden", "not any more"), jobs.REFUSED_S, "not permitted", id="refused"),
]


@pytest.mark.parametrize(("error", "patience", "want"), AWAY)
def test_following_gives_up_in_the_end(error: ApiError, patience: float, want: str) -> None:
    now = [0.0]

    def pause(seconds: float) -> None:
        now[0] += seconds

    away: list[Any] = [error] * 1000
    following = jobs.follow(connection([listed("1", "P1"), *away], [[]]), "toy", False, pause=pause, clock=lambda: now[0])
    with pytest.raises(UserError, match=want):
        list(following)
    assert patience <= now[0] <= patience + 10


def test_the_first_refusal_is_the_last() -> None:
    with pytest.raises(UserError, match="not permitted"):
        next(jobs.follow(connection([ApiError(403, "Forbidden", "no")], []), None, True))
