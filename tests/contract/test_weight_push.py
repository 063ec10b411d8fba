"""A weight push over every transport, from any mesh to engines of one and two ranks: served bytes are the offline conversion's."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.contract.push_site import FORMATS, MESHES, WIDE, Site, assert_served, weights_of
from torch import Tensor

from lprl_api.model.formats import WeightFormat
from lprl_fixtures.generate import ModelOptions, generate_model
from lprl_fixtures.pushes import Mesh, converted, moved
from lprl_workload.data import SyncReport


@pytest.mark.parametrize("fmt", FORMATS, ids=lambda f: f.kind)
@pytest.mark.parametrize("mesh", MESHES, ids=lambda m: f"tp{m.tp}-ep{m.ep}-pp{m.pp}")
def test_served_bytes_are_the_offline_conversion(
    site: Callable[..., Site], weights: dict[str, Tensor], fmt: WeightFormat, mesh: Mesh
) -> None:
    there = site("local", fmt, mesh)
    for version, now in enumerate((weights, moved(weights, 0.1))):
        reports = there.push(now, version, strong=version == 0)
        assert [getattr(r, "version", r) for r in reports] == [version] * mesh.ranks
        assert len({(r.nbytes, r.tensors, r.relative_rms_error, r.checked) for r in reports if isinstance(r, SyncReport)}) == 1
        assert_served(there, now)


@pytest.mark.parametrize("fmt", WIDE, ids=["int4-64", "int4-64-experts", "int4-128", "fp8-ue8m0"])
def test_served_bytes_of_a_wider_model_are_the_offline_conversion(site: Callable[..., Site], tmp_path: Path, fmt: WeightFormat) -> None:
    generate_model(tmp_path / "demo", ModelOptions("qwen3-moe", "demo"))
    wide = weights_of(tmp_path / "demo")
    there = site("local", fmt, MESHES[3], model=tmp_path / "demo")
    assert all(isinstance(report, SyncReport) for report in there.push(wide, 0))
    assert_served(there, wide)
    assert any(name.endswith(("_packed", "_inv")) for name in converted(wide, there.served_as)), "something is quantised"


@pytest.mark.parametrize("way", ["disk", "broadcast"])
@pytest.mark.parametrize("mesh", [MESHES[0], MESHES[3]], ids=lambda m: f"{m.ranks}-ranks")
def test_every_transport_brings_the_same(site: Callable[..., Site], weights: dict[str, Tensor], way: str, mesh: Mesh) -> None:
    there = site(way, FORMATS[4], mesh)
    for version, now in enumerate((weights, moved(weights, 0.1))):
        assert [getattr(r, "version", r) for r in there.push(now, version)] == [version] * mesh.ranks
        assert_served(there, now)


def test_the_error_does_not_depend_on_who_sends(site: Callable[..., Site], weights: dict[str, Tensor]) -> None:
    found = {mesh: site("local", FORMATS[1], mesh).push(weights, 0)[0] for mesh in MESHES}
    assert len({getattr(report, "relative_rms_error", report) for report in found.values()}) == 1
