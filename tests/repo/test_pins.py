"""Versions that stand in more than one place are one version."""

import re
import tomllib
from pathlib import Path

from lprl_operator.resources.settings import RenderSettings

ROOT = Path(__file__).parents[2]


def pins() -> dict[str, str]:
    lines = (line.split("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines())
    return dict(line.split("==") for line in lines if line)


def test_clusters_say_the_ray_their_image_holds() -> None:
    """KubeRay chooses by rayVersion how it starts Ray."""
    assert RenderSettings(image="x").ray_version == pins()["ray"]


def test_direct_dependencies_of_the_images_are_pinned() -> None:
    """What an image holds must not depend on the day it was built."""
    project = (ROOT / "pyproject.toml").read_text()
    shipped = project.partition("\ndev = [")[0].partition("dependencies = [")[2]
    names = {re.sub(r"[-_.]+", "-", n).lower() for n in re.findall(r'"([A-Za-z0-9._-]+)[^"]*[<>=][^"]*"', shipped)}
    assert len(names) > 15
    assert names <= {re.sub(r"[-_.]+", "-", n).lower() for n in pins()}


def backends_pins() -> dict[str, str]:
    lines = (line.split("#")[0].strip() for line in (ROOT / "constraints-backends.txt").read_text().splitlines())
    return {plain(name): version for name, _, version in (line.partition("==") for line in lines if line)}


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_environment_with_sglang_is_pinned_whole() -> None:
    """It must not depend on the day it was made, either."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    wanted = [*extras["cpu"], *extras["sglang-cpu"], "sglang", "pytest", "pytest-timeout"]
    names = {plain(re.split(r"[\[<>=]", need)[0]) for need in wanted}
    assert len(extras["sglang-cpu"]) > 20 and names <= set(backends_pins())


def test_the_environment_with_megatron_adds_to_ours_and_changes_nothing() -> None:
    """It takes constraints.txt as well: what both pinned, pip would have to choose between."""
    lines = (line.split("#")[0].strip() for line in (ROOT / "constraints-megatron.txt").read_text().splitlines())
    added = {plain(line.partition("==")[0]) for line in lines if line}
    assert "megatron-core" in added and not added & set(map(plain, pins()))
    recipe = (ROOT / "Makefile").read_text().partition("$(MEGATRON_STAMP): ")[2].partition("@touch")[0]
    asked = {plain(word) for line in recipe.splitlines() if "constraints-megatron.txt" in line for word in line.split()}
    assert added <= asked, "pinned, but not installed"


def test_the_environment_with_sglang_differs_where_its_file_says() -> None:
    ours = {plain(name): version for name, version in pins().items()}
    differ = {name for name, version in backends_pins().items() if name in ours and version != ours[name]}
    assert differ == {"compressed-tensors", "huggingface-hub", "tokenizers", "transformers"}
