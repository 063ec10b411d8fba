"""Memory of a device given up for a while: its content lies in host memory, and comes back to where it was.

Storages are emptied, not tensors replaced: whoever holds a view (autograd, FSDP, an optimizer, masters) keeps it and need not be told.
A view must not be read meanwhile; `asleep` says so.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(slots=True)
class _Parked:
    """One storage, and its place on the host."""

    storage: torch.UntypedStorage
    nbytes: int
    kept: bool
    """Whether the content is needed again."""
    copy: Tensor | None = None
    """uint8 [nbytes] on the host, of what is kept; of a GPU's memory page-locked, and used again: a new one costs more than the way."""
    lent: bool = False
    """Whether somebody outside reads the copy: it is not written to again."""

    @property
    def copy_stays(self) -> bool:
        """Whether the place on the host is kept while its content is on the device."""
        return self.copy is not None and self.copy.is_pinned() and not self.lent

    def leave(self) -> None:
        """Copy what is kept to the host (of a GPU's: begin to)."""
        self.nbytes = self.storage.nbytes()
        if not self.kept:
            return
        source = _bytes(self.storage)
        if self.copy is None or self.lent or self.copy.numel() != self.nbytes:
            self.copy, self.lent = torch.empty(self.nbytes, dtype=torch.uint8, pin_memory=source.is_cuda), False
        self.copy.copy_(source, non_blocking=True)

    def back(self) -> None:
        """Take the memory again, with its content or zeros."""
        self.storage.resize_(self.nbytes)
        if self.copy is None:
            _bytes(self.storage).zero_()
        else:
            _bytes(self.storage).copy_(self.copy, non_blocking=True)


class Parking:
    """Some tensors' memory; tensors that share a storage go together."""

    def __init__(self, kept: Iterable[Tensor], dropped: Iterable[Tensor] = ()) -> None:
        """`kept`: come back bit by bit. `dropped`: come back as zeros."""
        # _cdata: the storage itself, whatever tensor it was reached by; its address stays when its memory goes.
        self._storages = {s._cdata: _Parked(s, s.nbytes(), keep) for s, keep in _storages(kept, dropped)}
        self._asleep = False

    @property
    def asleep(self) -> bool:
        """Whether the memory is given up."""
        return self._asleep

    def sleep(self) -> None:
        """Give the memory up; nothing when it is already."""
        if self._asleep:
            return
        for parked in self._storages.values():
            parked.leave()
        self._finished()
        for parked in self._storages.values():
            parked.storage.resize_(0)
        self._asleep = bool(self._storages)

    def wake(self) -> None:
        """Take the memory back, with its content."""
        if not self._asleep:
            return
        for parked in self._storages.values():
            parked.back()
        self._finished()
        for parked in self._storages.values():
            if not parked.copy_stays:
                parked.copy = None
        self._asleep = False

    def copy_of(self, tensor: Tensor) -> Tensor | None:
        """Return what a tensor holds, in host memory, without a copy; None unless it sleeps here. It stays as it is."""
        parked = self._storages.get(tensor.untyped_storage()._cdata)
        if not self._asleep or parked is None or parked.copy is None:
            return None
        parked.lent = True
        return torch.as_strided(parked.copy.view(tensor.dtype), tensor.shape, tensor.stride(), tensor.storage_offset())

    def _finished(self) -> None:
        """Wait for copies that are under way."""
        if any(parked.storage.device.type == "cuda" for parked in self._storages.values()):
            torch.cuda.synchronize()


def _storages(kept: Iterable[Tensor], dropped: Iterable[Tensor]) -> list[tuple[torch.UntypedStorage, bool]]:
    return [(t.untyped_storage(), True) for t in kept] + [(t.untyped_storage(), False) for t in dropped]


def _bytes(storage: torch.UntypedStorage) -> Tensor:
    """Return a storage as a tensor of bytes."""
    return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)
