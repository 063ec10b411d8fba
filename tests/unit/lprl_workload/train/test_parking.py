"""Memory that is given up is really free, and comes back bit by bit under the views that everybody kept."""

import torch

from lprl_workload.train.parking import Parking


def made() -> tuple[torch.Tensor, list[torch.Tensor], torch.Tensor]:
    torch.manual_seed(3)
    flat = torch.randn(40)
    return flat, [flat[:12].view(3, 4), flat[12:].view(7, 4)], torch.randn(5, 2, dtype=torch.bfloat16)


def nbytes(*tensors: torch.Tensor) -> list[int]:
    return [tensor.untyped_storage().nbytes() for tensor in tensors]


def test_the_memory_is_free_and_the_views_see_the_same_bits_afterwards() -> None:
    flat, views, other = made()
    want = [tensor.clone() for tensor in (*views, other)]
    parking = Parking([flat, other])
    parking.sleep()
    assert parking.asleep and nbytes(flat, *views, other) == [0, 0, 0, 0]
    parking.sleep()
    parking.wake()
    assert not parking.asleep and nbytes(flat, other) == [160, 20]
    assert all(torch.equal(tensor, before) for tensor, before in zip((*views, other), want, strict=True))
    parking.wake()
    views[0].add_(1)
    assert torch.equal(flat[:12].view(3, 4), views[0]), "still one storage"


def test_what_nobody_needs_comes_back_as_zeros() -> None:
    flat, _, other = made()
    parking = Parking([other], dropped=[flat])
    parking.sleep()
    assert nbytes(flat, other) == [0, 0] and parking.copy_of(flat) is None
    parking.wake()
    assert torch.equal(flat, torch.zeros(40)) and nbytes(flat) == [160]


def test_what_sleeps_can_be_read_where_it_lies_and_stays_as_it_was() -> None:
    flat, views, other = made()
    want = [tensor.clone() for tensor in views]
    parking = Parking([flat, other])
    assert parking.copy_of(views[1]) is None
    parking.sleep()
    found = [parking.copy_of(view) for view in views]
    assert found[0] is not None and found[1] is not None
    assert found[0].untyped_storage().data_ptr() == found[1].untyped_storage().data_ptr(), "no copy"
    parking.wake()
    flat.zero_()
    parking.sleep()
    assert all(torch.equal(tensor, before) for tensor, before in zip(found, want, strict=True))  # type: ignore[arg-type]
