"""Weights that are pushed into a real server again are those of a first load, in every format; damaged ones are never served.

One server for each architecture and format: a start takes half a minute.
"""

from itertools import combinations
from pathlib import Path

import pytest
from tests.backends.kept_sites import PUSHED, Kind, Sites
from tests.backends.weight_site import Site, difference

from lprl_workload.data import NamedTensor
from lprl_workload.process.errors import WeightMismatchError
from lprl_workload.sync.buckets import as_bytes

pytestmark = pytest.mark.parametrize("kind", PUSHED, ids=str)


@pytest.fixture
def site(kind: Kind, sites: Sites) -> Site:
    return sites.of(kind).site


def test_a_second_load_is_a_first_one_over_five_alternating_pushes(site: Site, tmp_path: Path) -> None:
    one, two = site.tensors(1), site.tensors(2)
    first: dict[int, tuple[object, list[float]]] = {}
    for push in range(5):
        tensors = (one, two)[push % 2]
        site.push(tensors, strong=push < 3)
        found = site.control.checksums(), site.logprobs()
        assert first.setdefault(push % 2, found) == found
    assert first[0][0] != first[1][0] and difference(first[0][1], first[1][1]) > 0.5
    # What SGLang's own loader makes of the same checkpoint.
    site.control.update_disk(str(site.write(tmp_path / "two", two)), "auto")
    site.control.flush()
    assert site.control.checksums() == first[1][0]


def test_the_log_probabilities_are_those_of_our_own_arithmetic(site: Site) -> None:
    tensors = site.tensors(3)
    site.push(tensors)
    found = difference(site.logprobs(), site.expected(tensors))
    print(site.architecture, site.kind, "largest difference of a log-probability", found)
    assert found < 0.01


def replaced(tensors: list[NamedTensor], name: str, by: NamedTensor | None) -> list[NamedTensor]:
    return [item if item.name != name else by for item in tensors if item.name != name or by is not None]


def corrupted(tensors: list[NamedTensor], other: list[NamedTensor]) -> list[NamedTensor]:
    item = tensors[len(tensors) // 2]
    value = item.tensor.clone()
    as_bytes(value)[3] ^= 1
    return replaced(tensors, item.name, NamedTensor(item.name, value))


def missing(tensors: list[NamedTensor], other: list[NamedTensor]) -> list[NamedTensor]:
    return replaced(tensors, tensors[len(tensors) // 2].name, None)


def swapped(tensors: list[NamedTensor], other: list[NamedTensor]) -> list[NamedTensor]:
    gates = [item for item in tensors if "gate_proj" in item.name and not item.name.endswith("weight_shape")]
    pairs = (pair for pair in combinations(gates, 2) if len({(item.tensor.shape, item.tensor.dtype) for item in pair}) == 1)
    one, two = next(pairs)
    exchanged = {one.name: NamedTensor(one.name, two.tensor), two.name: NamedTensor(two.name, one.tensor)}
    return [exchanged.get(item.name, item) for item in tensors]


def stale_scale(tensors: list[NamedTensor], other: list[NamedTensor]) -> list[NamedTensor]:
    scale = next((item for item in tensors if "scale" in item.name), tensors[-1])
    return replaced(tensors, scale.name, next(item for item in other if item.name == scale.name))


@pytest.mark.parametrize("damage", [corrupted, missing, swapped, stale_scale], ids=lambda damage: damage.__name__)
def test_damaged_weights_are_refused_before_a_request_is_served(site: Site, damage: object) -> None:
    tensors = site.tensors(4)
    with pytest.raises(WeightMismatchError):
        site.push(tensors, sent=damage(tensors, site.tensors(5)))
    assert isinstance(site.weights.refusal(), WeightMismatchError)
    site.push(tensors)
    assert site.weights.refusal() is None


def test_a_tensor_the_model_has_no_place_for_is_refused_by_name(site: Site) -> None:
    tensors = site.tensors(4)
    stranger = NamedTensor("model.layers.0.self_attn.q_proj.weight_extra", tensors[0].tensor)
    with pytest.raises(WeightMismatchError, match="weight_extra"):
        site.push([*tensors, stranger])
    assert isinstance(site.weights.refusal(), WeightMismatchError)


def test_a_parameter_that_nobody_writes_is_refused_by_name(site: Site) -> None:
    tensors = site.tensors(4)
    with pytest.raises(WeightMismatchError, match=r"left as they were, such as model\.norm\.weight"):
        site.push([item for item in tensors if item.name != "model.norm.weight"])


def test_another_server_of_its_kind_takes_what_it_holds(site: Site) -> None:
    one, two = site.tensors(6), site.tensors(7)
    site.push(one)
    sums, logprobs = site.control.checksums(), site.logprobs()
    held = list(site.weights.held(1 << 17))
    assert len(held) > 1
    site.push(two)
    assert site.control.checksums() != sums
    site.version += 1
    site.weights.begin(site.version)
    for bucket in held:
        site.weights.load_held(bucket)
    site.weights.end_held(site.version)
    assert (site.control.checksums(), site.logprobs()) == (sums, logprobs)
    site.version += 1
    site.weights.begin(site.version)
    site.weights.load_held(held[0])
    with pytest.raises(WeightMismatchError, match="did not hand over"):
        site.weights.end_held(site.version)
