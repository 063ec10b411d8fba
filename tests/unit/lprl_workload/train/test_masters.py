"""Sharded masters: what a rank does to its own rows, and what it asks of others."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard
from torch.testing._internal.distributed.fake_pg import FakeStore

from lprl_api.model.formats import Fp8Block, Fp8Channel, Fp8Tensor, Int4Group, WeightFormat
from lprl_api.spec.algorithm import Optimizer
from lprl_workload.quant.scheme import fake_quantize
from lprl_workload.train.masters import Masters

ROWS, COLS = 384, 256
WHOLE = torch.randn(ROWS, COLS, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)


class SecondOfTwo:
    """The group as rank 1 sees it; the other rank's magnitudes are put in."""

    rank, world, device = 1, 2, torch.device("cpu")

    def __init__(self, first: torch.Tensor) -> None:
        self.first, self.numbers = first.float().abs(), 0

    def max_(self, largest: torch.Tensor) -> torch.Tensor:
        self.numbers += largest.numel()
        high, wide = -(-ROWS // largest.shape[0]), -(-COLS // largest.shape[1])
        for n in range(largest.shape[0]):
            for k in range(largest.shape[1]):
                mine = self.first[n * high : (n + 1) * high, k * wide : (k + 1) * wide]
                largest[n, k] = max(float(largest[n, k]), float(mine.amax()) if mine.numel() else 0.0)
        return largest

    def gather_rows(self, rows: torch.Tensor, total: int) -> torch.Tensor:
        raise AssertionError("weights of other ranks are gathered")


@pytest.fixture
def mesh() -> Iterator[Any]:
    dist.init_process_group("fake", rank=1, world_size=2, store=FakeStore())
    yield init_device_mesh("cpu", (2,))
    dist.destroy_process_group()


@pytest.mark.parametrize(
    ("fmt", "numbers"),
    [(Fp8Block(), 6), (Fp8Channel(), 0), (Fp8Tensor(), 1), (Int4Group(), 0)],
    ids=lambda value: getattr(value, "kind", ""),
)
def test_a_rank_quantises_its_own_rows_and_gathers_nobody_elses(mesh: Any, fmt: WeightFormat, numbers: int) -> None:
    mine = WHOLE[ROWS // 2 :]
    parameter = nn.Parameter(DTensor.from_local(mine.clone(), mesh, [Shard(0)], run_check=False))
    group: Any = SecondOfTwo(WHOLE[: ROWS // 2])
    masters = Masters({"w": parameter}, frozenset({"w"}), fmt, Optimizer(learning_rate=1e-3), group)
    masters.items["w"].value.copy_(mine)
    masters.refresh()
    found = parameter.detach().to_local()  # type: ignore[attr-defined]
    assert torch.equal(found, fake_quantize(WHOLE, fmt)[ROWS // 2 :].to(torch.bfloat16))
    assert group.numbers == numbers
