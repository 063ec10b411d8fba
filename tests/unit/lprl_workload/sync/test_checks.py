"""What arrived is compared with what was sent: cheap by the table, strong by checksums."""

import pytest
import torch

from lprl_workload.data import NamedTensor
from lprl_workload.io.dtypes import DTYPE_NAMES
from lprl_workload.process.errors import WeightMismatchError
from lprl_workload.sync.buckets import make_bucket
from lprl_workload.sync.checks import Arrived, Check
from lprl_workload.sync.checksum import checksum

Named = tuple[tuple[str, torch.Tensor], ...]
BASE: Named = (("a", torch.arange(6, dtype=torch.int32)), ("b", torch.ones(2, 3)))


def check_of(named: Named, strong: bool) -> Check:
    specs = [(name, DTYPE_NAMES[t.dtype], tuple(t.shape)) for name, t in named]
    return Check.of(specs, {name: int(checksum(t)) for name, t in named} if strong else None)


def arrived(named: Named, strong: bool) -> Arrived:
    found = Arrived(strong)
    for name, tensor in named:
        found.add(make_bucket([NamedTensor(name, tensor)]))
    return found


COUNTED = [
    pytest.param((BASE[0],), id="missing"),
    pytest.param((BASE[0], ("c", torch.ones(2, 3))), id="renamed"),
    pytest.param((BASE[0], ("b", torch.ones(3, 2))), id="reshaped"),
    pytest.param((("a", torch.arange(6, dtype=torch.int32).view(torch.float32)), BASE[1]), id="retyped"),
    pytest.param((("b", torch.arange(6, dtype=torch.int32)), ("a", torch.ones(2, 3))), id="swapped-of-other-shapes"),
]


@pytest.mark.parametrize("other", COUNTED)
@pytest.mark.parametrize("strong", [False, True])
def test_counts_see_another_table(other: Named, strong: bool) -> None:
    assert arrived(other, strong).compare(check_of(BASE, strong))


def test_checksums_see_other_bytes_and_counts_do_not() -> None:
    other = (("a", torch.tensor([0, 1, 2, 3, 4, 6], dtype=torch.int32)), BASE[1])
    assert arrived(other, False).compare(check_of(BASE, False)) == ""
    assert arrived(other, True).compare(check_of(BASE, True)) == "the bytes of 1 tensors differ from the sender's, such as a"


@pytest.mark.parametrize("strong", [False, True])
def test_order_does_not_matter(strong: bool) -> None:
    assert arrived(BASE[::-1], strong).compare(check_of(BASE, strong)) == ""


def test_a_name_twice_is_refused() -> None:
    with pytest.raises(WeightMismatchError, match="a: sent twice"):
        arrived((*BASE, BASE[0]), False)


def test_a_full_verification_needs_an_update_begun_for_one() -> None:
    assert "not begun so" in arrived(BASE, False).compare(check_of(BASE, True))
