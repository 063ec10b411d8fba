"""Ray's edges: connecting, waiting with deadlines, and telling lost actors from failed calls."""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import ray
from ray._raylet import GcsClient  # type: ignore[attr-defined]  # what Ray's own commands ask with; there is no public one
from ray.exceptions import ObjectLostError, RayActorError, RayError, RayTaskError

from lprl_api import names
from lprl_api.errors import UserError
from lprl_api.text import last_words, one_line
from lprl_api.wire.runconfig import RunConfig
from lprl_workload.launch.hosts import Place
from lprl_workload.launch.ray_vigil import POLL_S, Vigil
from lprl_workload.process.blame import blame_of
from lprl_workload.process.errors import (
    DamagedElsewhereError,
    DamagedError,
    DeadlineError,
    EngineLostError,
    FailedElsewhereError,
    FencedError,
    NonFiniteError,
    RemoteError,
    ServerLostError,
    TrainerLostError,
    WeightMismatchError,
)
from lprl_workload.process.movement import here
from lprl_workload.process.termination import FULL_ERRNOS, PLACE_ERRNOS

log = logging.getLogger(__name__)
CONNECT_DEADLINE_S = 300.0
HEALTH_CHECK_S = 60.0
"""Of one look, most of which is Python's start: on a busy machine it is the start that takes long, which says nothing of Ray."""
ENV_PLACE_DEADLINE = "LPRL_PLACE_DEADLINE_S"
PLACE_DEADLINE_S = 900.0
"""How long actors may wait for a node with room for them (a lost worker pod takes minutes to come back), unless the variable says."""
PLACE_RETRY_S = 3.0
LATE_VERDICT_S = 30.0
"""After one process failed: how long to wait whether another one turns out to be dead, or (an engine) to hang, which explains it."""
KNOWN = (
    UserError,
    DamagedError,
    EngineLostError,
    FencedError,
    NonFiniteError,
    RemoteError,
    ServerLostError,
    TrainerLostError,
    WeightMismatchError,
)
"""Errors of our own that cross processes as themselves."""
PLAIN_ERRNOS = (*FULL_ERRNOS, *PLACE_ERRNOS)
"""Errors of files that say all by themselves: which file, and what is wrong."""
EXIT_DETAIL = "Worker exit detail: "


class ActorLostError(RuntimeError):
    """An actor's process died; `number` is its position in the list asked."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(number, message)
        self.number = number

    def __str__(self) -> str:
        return str(self.args[1])


def place_deadline_s() -> float:
    """Return how long to wait for room."""
    return float(os.environ.get(ENV_PLACE_DEADLINE, PLACE_DEADLINE_S))


def connect() -> None:
    """Wait until the cluster at RAY_ADDRESS answers, then connect to it. Raises DeadlineError."""
    address = os.environ.get("RAY_ADDRESS", "auto")
    if address != "auto":
        wait_healthy(address, CONNECT_DEADLINE_S)
    ray.init(address=address, log_to_driver=True, logging_level=logging.WARNING, ignore_reinit_error=True)


def wait_healthy(address: str, deadline_s: float) -> None:
    """Wait until the head answers: ray.init against one that is still starting hangs for a minute. Raises DeadlineError."""
    until, said = time.monotonic() + deadline_s, ""
    while True:
        try:
            _listens(address)
            said = _asked(address)
            if not said:
                return
        except OSError as error:  # which costs nothing to find out
            said = str(error)
        if time.monotonic() > until:
            raise DeadlineError(f"Ray at {address} did not become healthy in {deadline_s:.0f} s: {said}")
        log.info("waiting for Ray at %s", address)
        time.sleep(1.0)


def _asked(address: str) -> str:
    """Return why a head does not answer, empty where it does: what `ray health-check` asks, without a process that imports Ray anew."""
    told: list[str] = []

    def ask() -> None:
        try:
            GcsClient(address=address).internal_kv_keys(b"", namespace=None, timeout=HEALTH_CHECK_S)
            told.append("")
        except Exception as error:  # whatever Ray's client makes of a head that is not ready: it is asked again
            told.append(last_words(str(error)) or type(error).__name__)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(HEALTH_CHECK_S)
    return told[0] if told else f"no answer in {HEALTH_CHECK_S:.0f} s"


def _listens(address: str) -> None:
    """Raise OSError unless something listens at host:port; what is no such address is for Ray to refuse."""
    host, _, port = address.rpartition(":")
    if port.isdecimal() and "/" not in host:
        socket.create_connection((host.strip("[]"), int(port)), HEALTH_CHECK_S).close()


def get_all(
    refs: Sequence[Any],
    what: str,
    deadline_s: float | None = None,
    who: Callable[[int], str] = lambda number: f"process {number}",
    vigil: Vigil | None = None,
) -> list[Any]:
    """Return all results, in order. `who(position)` says whose a call is: it stands in every error. `vigil`: over their processes.

    Raises:
        ActorLostError: a process, or the server it owns, died or stands still and is given up (also when the others only failed
            because of that).
        DeadlineError: not all answered in time.
        Exception: what a call raised, as itself when it is one of ours, else as RemoteError. One that is no chance at once:
            others may die of it, but do not explain it.

    """
    calls = list(refs)
    until = None if deadline_s is None else time.monotonic() + deadline_s
    pending, failure = calls, None
    while pending:
        done, pending, late = _wait(pending, until, vigil)
        if late and failure is not None:
            break
        if late:
            silent = who(calls.index(pending[0]))
            raise DeadlineError(f"{what}: {len(pending)} of {len(calls)} did not answer in {deadline_s} s, such as {silent}")
        if vigil is not None and not done:
            _give_up_still(vigil, [calls.index(ref) for ref in pending], what, who)
        for ref in done:
            error = _told(ref, calls.index(ref), what, who)
            if error is not None and failure is None:
                failure, until = error, time.monotonic() + LATE_VERDICT_S
                vigil = None if vigil is None else vigil.after_failure()
            elif error is not None and failure is not None and _tells(error) > _tells(failure):
                failure = error
    if failure is not None:
        raise failure
    return list(ray.get(list(refs)))


def _tells(error: Exception) -> int:
    """Return how much an error says of what happened: ours most, a broken connection comes of it, and what echoes another rank's least."""
    kinds = (FailedElsewhereError, RemoteError, DamagedElsewhereError)
    return next((place for place, kind in enumerate(kinds) if isinstance(error, kind)), len(kinds))


def _wait(pending: list[Any], until: float | None, vigil: Vigil | None) -> tuple[list[Any], list[Any], bool]:
    """Wait for a call to end, until a vigil's next look at most; returns done and pending ones, and whether it is past `until`."""
    left = None if until is None else max(0.0, until - time.monotonic())
    if until is not None:
        here.tick()  # what has a deadline of its own cannot hang
    poll = min(POLL_S if vigil is None else vigil.poll_s, POLL_S if left is None else left)
    done, pending = ray.wait(pending, num_returns=1, timeout=poll)
    return done, pending, not done and until is not None and time.monotonic() >= until


def _give_up_still(vigil: Vigil, pending: list[int], what: str, who: Callable[[int], str]) -> None:
    """Kill a process that stands still and raise ActorLostError, if there is one."""
    still = vigil.look(pending)
    if still is not None:
        vigil.end(still)
        raise ActorLostError(still.number, f"{what}: {who(still.number)} {still.words}")


def _told(ref: Any, number: int, what: str, who: Callable[[int], str]) -> Exception | None:
    """Return what a call failed with, None when it did not; raises what ends the wait at once."""
    error = _error_of(ref, f"{what}: {who(number)}")
    if isinstance(error, UserError) or (isinstance(error, RemoteError) and error.blame != "chance"):
        raise error
    if isinstance(error, RayActorError | ObjectLostError):
        raise ActorLostError(number, f"{what}: {who(number)}: {lost_words(error)}") from error
    if isinstance(error, ServerLostError):
        raise ActorLostError(number, f"{what}: {who(number)}: {error}") from error
    return error


def read(refs: Sequence[Any], what: str) -> list[Any]:
    """Return objects that were made already. Raises ActorLostError, with the position of the first, when some went with their node."""
    try:
        return list(ray.get(list(refs)))
    except ObjectLostError as error:
        number = next((n for n, ref in enumerate(refs) if ref.hex() == error.object_ref_hex), 0)
        raise ActorLostError(number, f"{what}: lost with the node that held them") from error


def _error_of(ref: Any, where: str) -> Exception | None:
    try:
        ray.get(ref, timeout=60)
    except RayTaskError as error:
        log.error("%s: %s", where, error)  # the whole traceback; what is raised is one line
        return _raised(error, where)
    except RayActorError as error:
        if error.actor_init_failed:  # the same again wherever it is started, such as code that cannot be imported there
            return RemoteError(f"{where}: {last_words(str(error))}", "program")
        lost: Exception = error
        return lost
    except ObjectLostError as error:
        gone: Exception = error
        return gone
    except RayError as error:
        return RemoteError(f"{where}: {type(error).__name__}: {last_words(str(error))}")
    return None


def _raised(error: RayTaskError, where: str) -> Exception:
    """Return what a call raised: ours and errors of named files as themselves, others as one line that says whose and why."""
    cause = error.cause
    if isinstance(cause, ObjectLostError):  # what the call was given went with its node
        gone: Exception = cause
        return gone
    plain = isinstance(cause, OSError) and cause.errno in PLAIN_ERRNOS
    if isinstance(cause, Exception) and (isinstance(cause, KNOWN) or plain):
        return cause
    return RemoteError(f"{where}: {last_words(str(error))}", blame_of(cause) if isinstance(cause, BaseException) else "chance")


def lost_words(error: RayError) -> str:
    """Return why a process is gone: the first line of what Ray says, and how the process ended where Ray knows it."""
    text = str(error)
    head = text.splitlines()[0] if text else type(error).__name__
    _, found, detail = text.partition(EXIT_DETAIL)
    return one_line(f"{head} {detail.splitlines()[0]}" if found and detail.strip() else head)


def actor_options(run: RunConfig) -> dict[str, Any]:
    """Return the options of a rank or an engine, beside where it runs (ray_bundles.py)."""
    options: dict[str, Any] = {"num_cpus": 0, "num_gpus": 0, "max_restarts": 0}
    if run.ranks.accelerator != "cpu":
        # The slot decides which GPU an actor uses, since a rank and an engine share one: every actor sees all of its node's.
        options["runtime_env"] = {"env_vars": {"RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1"}}
    return options


def place(make: Sequence[Callable[[], Any]], what: str, waits: Callable[[], str]) -> tuple[list[Any], list[Place]]:
    """Start an actor with each of `make` and return them with where they landed.

    An actor that dies before it answers (a node that is just going away still takes some) is made anew. Raises DeadlineError
    when some found no room in time, with what `waits` says of it.
    """
    until = time.monotonic() + place_deadline_s()
    while True:
        handles = [start() for start in make]
        try:
            calls = [handle.__ray_call__.remote(_place) for handle in handles]
            return handles, get_all(calls, what, max(0.0, until - time.monotonic()))
        except (ActorLostError, DeadlineError) as error:
            for handle in handles:
                ray.kill(handle)
            if isinstance(error, DeadlineError) or time.monotonic() > until:
                raise DeadlineError(f"{error}; {waits()}") from error
            log.warning("%s: %s; trying again", what, error)
            time.sleep(PLACE_RETRY_S)


def _place(host: Any) -> Place:
    context = ray.get_runtime_context()
    address = os.environ.get(names.ENV_HOST_ADDRESS) or ray.util.get_node_ip_address()
    return Place(context.get_node_id(), address, os.getpid(), int(os.environ.get(names.ENV_NODE_GROUP, "0")))
