"""Push over process groups of their own: every sender broadcasts its parcels to all engine ranks (split placement).

One group a sender, made beside torch's default group because it spans processes of two worlds: rank 0 is the sender, ranks 1..E the
engine ranks. A message is three broadcasts: sizes int64 [2], a table, data; a negative second size is a sign instead of data:

    first sender   ROUND (BUCKET* CLOSE) ROUND ... END | ABORT      its table at END says what everybody must have got
    other senders        (BUCKET* CLOSE)

A receiver serves the groups in turn, round by round, so no two of them wait for each other. A last all-reduce in the first group tells
its sender whether all of them verified.
"""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import PrefixStore, ProcessGroupGloo, Store, TCPStore

from lprl_workload.data import Bucket
from lprl_workload.process.errors import DeadlineError, EngineLostError, WeightMismatchError
from lprl_workload.sync.buckets import as_bytes
from lprl_workload.sync.checks import Check
from lprl_workload.sync.receiver import Receiver
from lprl_workload.sync.routes import Target
from lprl_workload.sync.wire import MAX_HEADER_BYTES, decode_bucket, decode_check, encode_bucket, encode_checks

END, ABORT, ROUND, CLOSE = -1, -2, -3, -4
POLL_S = 0.02
ABANDONED = "abandoned"
TELL_S = 5.0
"""How long a sender that gives up tries to say why: an engine that hangs does not listen."""
Confirm = Callable[[bool], None]
"""Waits until every receiver returned from its `receive`; raises what they raised. True: the connection broke, none has reason to stay."""


@dataclass(frozen=True, slots=True)
class Meeting:
    """Where the processes of a broadcast group find each other."""

    address: str
    port: int
    world: int
    """1 sender + engines."""
    timeout_s: float
    name: str
    """Unique per group, so that a rebuilt one never reads the keys of its predecessor."""


def serve_store(timeout_s: float, host: str) -> TCPStore:
    """Start the meeting point on a free port of this process; read its `.port`."""
    return TCPStore(host, 0, None, True, timedelta(seconds=timeout_s), wait_for_workers=False)


def _gather(store: Store, rank: int, meeting: Meeting) -> None:
    """Wait until everybody is at the meeting point; raises DeadlineError when it is abandoned, or time is up.

    Making a group waits for everybody too, but nothing can end that: an engine that died on the way would cost the whole timeout.
    """
    store.set(f"here/{rank}", "1")
    until = time.monotonic() + meeting.timeout_s
    everybody = [f"here/{number}" for number in range(meeting.world)]
    while not store.check(everybody):
        if store.check([ABANDONED]):
            raise DeadlineError(f"meeting {meeting.name}: given up, somebody will not come")
        if time.monotonic() > until:
            raise DeadlineError(f"meeting {meeting.name}: not all of {meeting.world} came in {meeting.timeout_s:.0f} s")
        time.sleep(POLL_S)


def abandon(meeting: Meeting) -> None:
    """Let everybody who waits at a meeting point go."""
    store = TCPStore(meeting.address, meeting.port, None, False, timedelta(seconds=meeting.timeout_s), wait_for_workers=False)
    PrefixStore(meeting.name, store).set(ABANDONED, "1")


def _nccl(store: Store, rank: int, world: int, timeout: timedelta) -> Any:
    options = dist.ProcessGroupNCCL.Options()
    options._timeout = timeout
    return dist.ProcessGroupNCCL(store, rank, world, options)


class BroadcastGroup:
    """One process's end of the group; gloo for CPU tensors, NCCL for CUDA ones."""

    def __init__(self, meeting: Meeting, rank: int, device: torch.device, store: Store | None = None) -> None:
        timeout = timedelta(seconds=meeting.timeout_s)
        base = store or TCPStore(meeting.address, meeting.port, None, False, timeout, wait_for_workers=False)
        prefixed = PrefixStore(meeting.name, base)
        self.rank, self.device = rank, device
        _gather(prefixed, rank, meeting)
        # Not through init_process_group: the processes of this group belong to different default groups, or to none.
        self._group: Any = _nccl(prefixed, rank, meeting.world, timeout) if device.type == "cuda" else None
        if self._group is None:
            self._group = ProcessGroupGloo(prefixed, rank, meeting.world, timeout)

    def broadcast(self, tensor: Tensor) -> None:
        """Send `tensor` from rank 0 into everyone's `tensor`."""
        if tensor.numel():
            self._open().broadcast(tensor, 0).wait()

    @property
    def closed(self) -> bool:
        """Return whether this end has left."""
        return self._group is None

    def close(self) -> None:
        """Close the connections, once; whoever still waits in this group fails at once."""
        group, self._group = self._group, None
        if group is not None:
            group.shutdown()

    def all_agree(self, ok: bool) -> bool:
        """Return whether every process passed True."""
        flag = torch.tensor([0 if ok else 1], dtype=torch.int64, device=self.device)
        self._open().allreduce([flag]).wait()
        return int(flag.item()) == 0

    def _open(self) -> Any:
        if self._group is None:
            raise RuntimeError("this end has left its broadcast group: its connection broke")
        return self._group


class BroadcastTransport:
    """One sender's end. `announce(version, strong)` makes every engine rank call `receive`; what it returns waits for them."""

    def __init__(self, group: BroadcastGroup, announce: Callable[[int, bool], Confirm]) -> None:
        """`group`: of this sender and all engine ranks."""
        self._group, self._announce = group, announce
        self._confirm: Confirm = lambda broken: None
        self._begun = self._ended = False

    def begin(self, version: int, strong: bool) -> None:
        """Have the engines listen."""
        self._confirm = self._announce(version, strong)
        self._begun = True

    def open_round(self) -> None:
        """Say that a round follows."""
        self._say(ROUND)

    def send(self, bucket: Bucket, to: Sequence[Target]) -> None:
        """Broadcast one bucket; whoever it is not for drops it."""
        data = bucket.data.to(self._group.device)
        self._say(data.numel(), encode_bucket(bucket.entries, to))
        self._try(lambda: self._group.broadcast(as_bytes(data)))

    def close_round(self) -> None:
        """Say that this sender's part of the round is over."""
        self._say(CLOSE)

    def commit(self, version: int, checks: Sequence[tuple[Sequence[Target], Check]]) -> None:
        """Send what everybody must have got. Raises WeightMismatchError when any engine got something else."""
        self._say(END, encode_checks(checks))
        self._ended = True
        agreed = self._try(lambda: self._group.all_agree(True))
        self._confirm(False)
        if not agreed:
            raise WeightMismatchError(f"weights of version {version}: an engine did not confirm them")

    def abort(self, why: str, first: bool) -> EngineLostError | None:
        """Tell the engines, and close this rank's group: whoever still waits in it fails at once. Return the engine that is to blame."""
        if first and self._begun and not self._ended and not self._group.closed:
            teller = threading.Thread(target=self._tell, args=(why,), daemon=True)
            teller.start()
            teller.join(TELL_S)
        self._group.close()
        try:
            if first and self._begun:
                self._confirm(True)
        except EngineLostError as lost:
            return lost
        except Exception:
            pass  # what engines that live say of a push that was given up
        return None

    def _tell(self, why: str) -> None:
        with suppress(Exception):  # a broken connection says the same
            self._send(ABORT, why.encode())

    def _try(self, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except RuntimeError:
            # A lost engine explains a broken connection better than the connection does; the others have nothing to wait for.
            self._group.close()
            self._confirm(True)
            raise

    def _say(self, size: int, table: bytes = b"") -> None:
        self._try(lambda: self._send(size, table))

    def _send(self, size: int, table: bytes) -> None:
        device = self._group.device
        self._group.broadcast(torch.tensor([len(table), size], dtype=torch.int64, device=device))
        if table:
            self._group.broadcast(torch.frombuffer(bytearray(table), dtype=torch.uint8).to(device))


@dataclass(slots=True)
class Receiving:
    """One engine rank during a push. Whatever its engine raises, it goes on listening: the others would wait for it."""

    groups: Sequence[BroadcastGroup]
    engine: Receiver
    target: Target
    failure: Exception | None = None

    def attempt(self, action: Callable[[], None]) -> None:
        """Do something with the engine, unless that is pointless by now."""
        if self.failure is None:
            try:
                action()
            except Exception as error:
                self.failure = error

    def message(self, group: BroadcastGroup) -> tuple[int, bytes]:
        """Return the next size or sign, and its table."""
        sizes = torch.zeros(2, dtype=torch.int64, device=group.device)
        group.broadcast(sizes)
        length, size = (int(n) for n in sizes.tolist())
        if not 0 <= length <= MAX_HEADER_BYTES:
            raise WeightMismatchError(f"bucket header of {length} bytes; at most {MAX_HEADER_BYTES} are taken")
        table = torch.zeros(length, dtype=torch.uint8, device=group.device)
        group.broadcast(table)
        return size, bytes(table.cpu().numpy())

    def round(self) -> None:
        """Take the parcels of one round, sender by sender."""
        for group in self.groups:
            while (message := self.message(group))[0] != CLOSE:
                size, table = message
                data = torch.zeros(size, dtype=torch.uint8, device=group.device)
                group.broadcast(data)
                self.attempt(partial(self.load, table, data))

    def load(self, table: bytes, data: Tensor) -> None:
        """Load a bucket that is for this rank."""
        entries, to = decode_bucket(table)
        if self.target in to:
            self.engine.load_bucket(Bucket(entries, data))


def receive(groups: Sequence[BroadcastGroup], engine: Receiver, version: int, strong: bool, target: Target) -> None:
    """Take one push into an engine rank; `groups` in the order of the senders. The sender learns whether all of them verified.

    Raises what the engine raised, or WeightMismatchError when the push was given up.
    """
    mine = Receiving(groups, engine, target)
    mine.attempt(lambda: engine.begin_update(version, strong))
    try:
        while (message := mine.message(groups[0]))[0] == ROUND:
            mine.round()
    except Exception as error:
        # A connection broke, or what follows cannot be told apart any more: those in the other groups must not wait for this one.
        for group in groups:
            group.close()
        engine.abort_update(str(error))
        raise
    sign, table = message
    if sign == ABORT:
        engine.abort_update(table.decode())
        raise WeightMismatchError(f"weights of version {version}: the push was given up: {table.decode()}")
    mine.attempt(lambda: engine.end_update(version, decode_check(table, target)))
    groups[0].all_agree(mine.failure is None)
    if mine.failure is not None:
        engine.abort_update(str(mine.failure))
        raise mine.failure
