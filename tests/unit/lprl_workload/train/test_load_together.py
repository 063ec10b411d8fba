"""Ranks load a checkpoint together or not at all, and only what one of them found damaged is called damaged by the others."""

import errno
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lprl_workload.io.parts import FileRecord
from lprl_workload.process.blame import blame_of
from lprl_workload.process.errors import DamagedError, FailedElsewhereError
from lprl_workload.train.rank_actor import RankActor

CHANCE, DAMAGE = OSError(errno.EIO, "Input/output error"), DamagedError("a: no such file")
Failures = tuple[Exception | None, ...]


class Rank(RankActor):
    """A rank of which only the reading is real."""

    masters: Any = None

    def __init__(self, failure: Exception | None, group: Any) -> None:
        self._failure, self._group, self.refreshed = failure, group, False
        self.masters = SimpleNamespace(require=lambda *parts: None, refresh=self._refresh)

    def _refresh(self) -> None:
        self.refreshed = True

    def _of_reference(self) -> list[torch.Tensor]:
        return []

    def _snapshot(self) -> Any:
        raise NotImplementedError

    def _read_state(self, directory: Path, records: Sequence[FileRecord]) -> int:
        if self._failure is not None:
            raise self._failure
        return 3


def loaded(failures: Failures) -> list[Exception | None]:
    """What `load` raises on each rank, the first pass telling what each adds to the sum."""
    given: list[torch.Tensor] = []
    found: list[Exception | None] = []
    for adding in (True, False):
        for failure in failures:

            def sum_(tensor: torch.Tensor, adding: bool = adding) -> torch.Tensor:
                given.extend([tensor.clone()] if adding else [])
                return tensor if adding else torch.stack(given).sum(dim=0)

            rank = Rank(failure, SimpleNamespace(device=torch.device("cpu"), sum_=sum_))
            raised = None
            try:
                rank.load(Path("step-000010/trainer"))
            except Exception as error:
                raised = error
            assert rank.refreshed == (raised is None)
            found += [] if adding else [raised]
    return found


def test_all_load_or_none() -> None:
    assert loaded((None, None, None)) == [None, None, None]


@pytest.mark.parametrize("failures", [(CHANCE, None, None), (CHANCE, CHANCE, None)])
def test_what_one_rank_could_not_read_by_chance_is_no_damage_elsewhere(failures: Failures) -> None:
    found = loaded(failures)
    assert found[: failures.count(CHANCE)] == [CHANCE] * failures.count(CHANCE)
    for error in found[failures.count(CHANCE) :]:
        assert isinstance(error, FailedElsewhereError) and blame_of(error) == "chance", "another attempt tries again"


@pytest.mark.parametrize("failures", [(DAMAGE, None), (DAMAGE, CHANCE, None)])
def test_damage_is_damage_on_every_rank_that_could_read(failures: Failures) -> None:
    *own, elsewhere = loaded(failures)
    assert own == list(failures[:-1])
    assert isinstance(elsewhere, DamagedError) and "1 other ranks" in str(elsewhere)
