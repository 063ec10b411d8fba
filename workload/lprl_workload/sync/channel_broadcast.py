"""Push over a process group of its own: trainer rank 0 broadcasts, every engine process receives (split placement).

The group is made beside torch's default group, because it spans processes of two worlds: rank 0 is the sender, ranks 1..E
the engines. On the wire a bucket is three broadcasts: sizes int64 [2], table of entries, data; sizes (n, -1) end the push
and carry the digest in the table's place. A last all-reduce tells every process whether all of them verified.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import PrefixStore, ProcessGroupGloo, Store, TCPStore

from lprl_workload.buckets import as_bytes
from lprl_workload.data import Bucket, NamedTensor, SyncReport
from lprl_workload.process.errors import WeightMismatchError
from lprl_workload.sync.channel import Outgoing, Receiver
from lprl_workload.sync.wire import MAX_HEADER_BYTES, decode_entries, encode_entries

END = -1
Confirm = Callable[[], None]
"""Waits until every receiver returned from its `receive`; raises what they raised."""


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


def _nccl(store: Store, rank: int, world: int, timeout: timedelta) -> Any:
    options = dist.ProcessGroupNCCL.Options()
    options._timeout = timeout
    return dist.ProcessGroupNCCL(store, rank, world, options)


class BroadcastGroup:
    """One process's end of the group; gloo for CPU tensors, NCCL for CUDA ones."""

    def __init__(self, meeting: Meeting, rank: int, device: torch.device, store: Store | None = None) -> None:
        timeout = timedelta(seconds=meeting.timeout_s)
        base = store or TCPStore(meeting.address, meeting.port, None, False, timeout)
        prefixed = PrefixStore(meeting.name, base)
        self.rank, self.device = rank, device
        # Not through init_process_group: the processes of this group belong to different default groups, or to none.
        self._group: Any = _nccl(prefixed, rank, meeting.world, timeout) if device.type == "cuda" else None
        if self._group is None:
            self._group = ProcessGroupGloo(prefixed, rank, meeting.world, timeout)

    def broadcast(self, tensor: Tensor) -> None:
        """Send `tensor` from rank 0 into everyone's `tensor`."""
        if tensor.numel():
            self._group.broadcast(tensor, 0).wait()

    def close(self) -> None:
        """Close the connections; whoever still waits in this group fails at once."""
        self._group.shutdown()
        self._group = None

    def all_agree(self, ok: bool) -> bool:
        """Return whether every process passed True."""
        flag = torch.tensor([0 if ok else 1], dtype=torch.int64, device=self.device)
        self._group.allreduce([flag]).wait()
        return int(flag.item()) == 0


class BroadcastChannel:
    """The sender. `announce(version)` must make every engine call `receive` and return a function that waits for them."""

    def __init__(self, group: BroadcastGroup, bucket_bytes: int, announce: Callable[[int], Confirm]) -> None:
        self._group = group
        self._bucket_bytes = bucket_bytes
        self._announce = announce

    def push(self, tensors: Iterable[NamedTensor], version: int) -> SyncReport:
        """Broadcast one version. Raises WeightMismatchError when any engine got something else."""
        out = Outgoing(tensors, self._bucket_bytes)
        confirm = self._announce(version)
        try:
            for bucket in out.buckets():
                self._send(encode_entries(bucket.entries), bucket.data)
            self._send(out.digest.encode(), None)
            agreed = self._group.all_agree(True)
        except RuntimeError:
            confirm()  # a dead engine explains a broken connection better than the connection does
            raise
        confirm()
        if not agreed:
            raise WeightMismatchError(f"weights of version {version}: an engine did not confirm the digest")
        return out.report(version)

    def _send(self, table: bytes, data: Tensor | None) -> None:
        device = self._group.device
        size = END if data is None else data.numel()
        self._group.broadcast(torch.tensor([len(table), size], dtype=torch.int64, device=device))
        self._group.broadcast(torch.frombuffer(bytearray(table), dtype=torch.uint8).to(device))
        if data is not None:
            self._group.broadcast(as_bytes(data.to(device)))


def _receive_table(group: BroadcastGroup) -> tuple[bytes, int]:
    sizes = torch.zeros(2, dtype=torch.int64, device=group.device)
    group.broadcast(sizes)
    header, nbytes = (int(n) for n in sizes.tolist())
    if not 0 <= header <= MAX_HEADER_BYTES:
        raise WeightMismatchError(f"bucket header of {header} bytes; at most {MAX_HEADER_BYTES} are taken")
    table = torch.zeros(header, dtype=torch.uint8, device=group.device)
    group.broadcast(table)
    return bytes(table.cpu().numpy()), nbytes


def receive(group: BroadcastGroup, engine: Receiver, version: int) -> None:
    """Take one push into `engine`. Every process learns whether all of them verified.

    Raises WeightMismatchError when this engine, or another one, got something else.
    """
    # A failure must not stop the collectives: the others would hang until their timeout.
    failure: WeightMismatchError | None = None
    try:
        engine.begin_update(version)
    except WeightMismatchError as error:
        failure = error
    while True:
        table, nbytes = _receive_table(group)
        if nbytes == END:
            break
        data = torch.zeros(nbytes, dtype=torch.uint8, device=group.device)
        group.broadcast(data)
        try:
            if failure is None:
                engine.load_bucket(Bucket(decode_entries(table), data))
        except WeightMismatchError as error:
            failure = error
    try:
        if failure is None:
            engine.end_update(version, table.decode())
    except WeightMismatchError as error:
        failure = error
    agreed = group.all_agree(failure is None)
    if failure is not None:
        raise failure
    if not agreed:
        raise WeightMismatchError(f"weights of version {version}: another engine did not confirm the digest")
