"""Memory of a device given up for a while: its content lies in host memory, and comes back to where it was.

Storages are emptied, not tensors replaced: whoever holds a view (autograd, FSDP, an optimizer, masters) keeps it and need not be told.
A view must not be read meanwhile; `asleep` says so.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(slots=True)
class _Held:
    storage: torch.UntypedStorage
    nbytes: int
    copy: Tensor | None
    """uint8 [nbytes] on the host; None where the content is not needed any more."""


class Parking:
    """Some tensors' memory; tensors that share a storage go together."""

    def __init__(self, kept: Iterable[Tensor], dropped: Iterable[Tensor] = ()) -> None:
        """`kept`: come back bit by bit. `dropped`: come back as zeros."""
        # _cdata: the storage itself, whatever tensor it was reached by; its address stays when its memory goes.
        self._storages = {t.untyped_storage()._cdata: (t.untyped_storage(), True) for t in kept}
        self._storages |= {t.untyped_storage()._cdata: (t.untyped_storage(), False) for t in dropped}
        self._held: dict[int, _Held] = {}

    @property
    def asleep(self) -> bool:
        """Whether the memory is given up."""
        return bool(self._held)

    def sleep(self) -> None:
        """Give the memory up; nothing when it is already."""
        if self._held:
            return
        for key, (storage, keep) in self._storages.items():
            copy = _bytes(storage).to("cpu", copy=True) if keep else None
            self._held[key] = _Held(storage, storage.nbytes(), copy)
            storage.resize_(0)

    def wake(self) -> None:
        """Take the memory back, with its content."""
        for held in self._held.values():
            held.storage.resize_(held.nbytes)
            if held.copy is None:
                _bytes(held.storage).zero_()
            else:
                _bytes(held.storage).copy_(held.copy)
        # What a snapshot took of the copies stays as it is: the next sleep makes new ones.
        self._held = {}

    def copy_of(self, tensor: Tensor) -> Tensor | None:
        """Return what a tensor holds, in host memory, without a copy; None unless it sleeps here."""
        held = self._held.get(tensor.untyped_storage()._cdata)
        if held is None or held.copy is None:
            return None
        return torch.as_strided(held.copy.view(tensor.dtype), tensor.shape, tensor.stride(), tensor.storage_offset())


def _bytes(storage: torch.UntypedStorage) -> Tensor:
    """Return a storage as a tensor of bytes."""
    return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)
