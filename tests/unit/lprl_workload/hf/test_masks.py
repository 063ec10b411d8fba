"""Masks that layers share: one of a shape, and of all shapes no more bytes than said, however many lengths come by."""

import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lprl_workload.hf import masks
from lprl_workload.hf.attend import causal

CPU = torch.device("cpu")
LIMIT = 64 * 64 * 4 * 3
KINDS: dict[str, Callable[[int], Tensor]] = {
    "causal": lambda width: causal(width, width, CPU),
    "window": lambda width: masks.band(width, width, 8, CPU),
    "chunks": lambda width: masks.chunks(width, width, 8, CPU),
}


@pytest.fixture(autouse=True)
def limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masks, "KEPT_BYTES", LIMIT)
    monkeypatch.setattr(masks, "_kept", type(masks._kept)())


@pytest.mark.parametrize("kind", KINDS)
def test_masks_of_many_lengths_are_let_go(kind: str) -> None:
    made = [(weakref.ref(mask), mask.nbytes) for mask in map(KINDS[kind], range(33, 97))]
    alive = [size for mask, size in made if mask() is not None]
    assert 0 < sum(alive) <= LIMIT


def test_all_kinds_share_one_limit() -> None:
    made = [(weakref.ref(mask), mask.nbytes) for width in range(33, 65) for mask in (make(width) for make in KINDS.values())]
    assert 0 < sum(size for mask, size in made if mask() is not None) <= LIMIT


def test_a_mask_beyond_the_limit_is_not_kept_and_drives_out_no_other() -> None:
    small = weakref.ref(causal(32, 32, CPU))
    large = weakref.ref(causal(120, 120, CPU))
    assert LIMIT < 120 * 120 * 4
    assert large() is None and small() is not None


@pytest.mark.parametrize("kind", KINDS)
def test_layers_of_a_pass_share_their_masks(kind: str) -> None:
    first, other = KINDS[kind](40), KINDS[kind](48)
    assert KINDS[kind](40) is first and KINDS[kind](48) is other


def test_the_mask_used_last_stays() -> None:
    first, second = (weakref.ref(causal(64, 64, CPU)), weakref.ref(causal(63, 63, CPU)))
    for width in (62, 61, 60):
        causal(64, 64, CPU)
        causal(width, width, CPU)
    assert first() is not None and second() is None


def test_of_short_masks_few_are_kept() -> None:
    made = [weakref.ref(causal(1, width, CPU)) for width in range(1, 200)]
    assert sum(mask() is not None for mask in made) == masks.KEPT


def test_a_process_keeps_at_most_a_quarter_of_a_gibibyte(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert masks.KEPT_BYTES <= 2**28
