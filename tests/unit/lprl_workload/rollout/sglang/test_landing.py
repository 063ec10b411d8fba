"""What is noted of copies that a model's own loader makes, whatever it does to the tensors before."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

from lprl_workload.rollout.sglang.landing import Landing, sent


class Fused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Parameter(torch.zeros(6, 4), requires_grad=False)
        self.experts = nn.Parameter(torch.zeros(2, 4, 3), requires_grad=False)
        self.small = nn.Parameter(torch.zeros(3, dtype=torch.bfloat16), requires_grad=False)

    @torch.no_grad()
    def load(self, items: dict[str, Tensor]) -> None:
        for name, tensor in items.items():
            if name in ("q", "k"):
                self.qkv.data.narrow(0, "qk".index(name) * 3, 3).copy_(tensor[:3])
            elif name.startswith("expert"):
                self.experts.data[int(name[-1])] = tensor.t().contiguous()
            elif name == "half":
                self.small.data.copy_(tensor)

    def needed(self) -> Iterator[tuple[str, Tensor, int]]:
        yield from ((name, parameter, parameter.numel()) for name, parameter in self.named_parameters())


def values(*shape: int) -> Tensor:
    return torch.arange(1, 1 + torch.Size(shape).numel(), dtype=torch.float32).reshape(shape)


GIVEN = {"q": values(3, 4), "k": -values(3, 4), "expert0": values(3, 4), "expert1": -values(3, 4), "half": values(3) / 7}


def landed(model: Fused, given: dict[str, Tensor]) -> Landing:
    landing = Landing()
    model.load({name: sent(tensor, name, landing) for name, tensor in given.items()})
    return landing


def test_every_copy_is_noted_through_slices_casts_and_assignments() -> None:
    model = Fused()
    landing = landed(model, GIVEN)
    assert landing.used == set(GIVEN)
    assert landing.moved() == [] and landing.unwritten(model.needed()) == []
    assert torch.equal(model.qkv, torch.cat([GIVEN["q"], GIVEN["k"]])) and torch.equal(model.small, GIVEN["half"].bfloat16())
    assert type(model.qkv.data) is torch.Tensor


def test_names_the_loader_skips_and_parameters_nobody_writes_are_found() -> None:
    model = Fused()
    landing = landed(model, {"q": GIVEN["q"], "expert0": GIVEN["expert0"], "weight_scale_inv": values(2)})
    assert {"q", "expert0", "weight_scale_inv"} - landing.used == {"weight_scale_inv"}
    assert landing.unwritten(model.needed()) == ["experts", "qkv", "small"]


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda model: model.qkv.data[4].add_(1), id="changed-afterwards"),
        pytest.param(lambda model: model.qkv.data.copy_(model.qkv.data.roll(1, 1)), id="rolled"),
        pytest.param(lambda model: model.load({"k": GIVEN["q"]}), id="overwritten"),
    ],
)
def test_bytes_that_are_not_where_they_were_put_are_found(damage: Callable[[Fused], object]) -> None:
    model = Fused()
    landing = landed(model, GIVEN)
    damage(model)
    assert "k" in landing.moved()


def test_copies_of_other_threads_and_of_what_was_put_together_are_noted() -> None:
    model = Fused()
    landing = Landing()
    q, k = (sent(GIVEN[name], name, landing) for name in "qk")

    def copy(value: Tensor) -> None:
        with torch.no_grad():
            model.qkv.data.copy_(value)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(copy, torch.cat([q, k], dim=0)).result()
    assert landing.used == {"q", "k"} and landing.moved() == []
    first, second = torch.chunk(k, 2, 1)
    model.qkv.data[3:, :2].copy_(second)
    model.qkv.data[3:, 2:].copy_(first)
    assert landing.used == {"q", "k"} and landing.moved() == ["k", "q"]
