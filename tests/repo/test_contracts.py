"""Import contracts cover every module: none stands outside a room, and each large library is imported in the room that is named for it."""

import ast
import configparser
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {"lprl_api": "api", "lprl_operator": "operator", "lprl_workload": "workload", "lprl_sglang_cpu": "workload"}
LIBRARIES = {
    "ray": {"lprl_workload.launch"},
    "kubernetes": {"lprl_operator.kube"},
    "sglang": {"lprl_workload.rollout", *(f"lprl_sglang_cpu.{room}" for room in ("compressed", "fp8", "latent", "moe", "platform"))},
    "megatron": {"lprl_workload.train.megatron"},
    "transformer_engine": {"lprl_workload.train.megatron"},
    "triton": {"lprl_workload.quant"},
}
"""Library -> the rooms that may import it, or folders of a room."""


def contracts() -> configparser.ConfigParser:
    found = configparser.ConfigParser()
    found.read(ROOT / ".importlinter")
    return found


def modules(package: str, tree: Path = ROOT) -> set[str]:
    """Rooms and loose modules of a package."""
    folder = tree / PACKAGES[package] / package
    files = {p.stem for p in folder.glob("*.py") if p.stem != "__init__"}
    return files | {p.name for p in folder.iterdir() if (p / "__init__.py").is_file()}


def layered(package: str) -> tuple[set[str], bool]:
    """Modules in the layers of a package, and whether the contract is exhaustive."""
    for section in (contracts()[name] for name in contracts().sections()):
        if section.get("type") == "layers" and section["containers"].split() == [package]:
            return set(section["layers"].replace("|", " ").split()), section.getboolean("exhaustive", False)
    return set(), False


def imported(path: Path) -> set[str]:
    """Top names of what a file imports, wherever in it."""
    found = set[str]()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return found


@cache
def imports() -> dict[str, set[str]]:
    """Modules, and the top names of what each imports: parsed once for all libraries."""
    files = [(ROOT / root, path) for root in ("api", "operator", "workload") for path in (ROOT / root).rglob("*.py")]
    return {".".join(path.relative_to(root).with_suffix("").parts): imported(path) for root, path in files}


def importers(library: str) -> set[str]:
    """Modules that import a library."""
    return {module for module, names in imports().items() if library in names}


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_stands_outside_a_room(package: str) -> None:
    named, exhaustive = layered(package)
    assert exhaustive and named == modules(package)


def test_a_loose_module_would_be_noticed(tmp_path: Path) -> None:
    folder = tmp_path / "workload" / "lprl_workload"
    (folder / "rl").mkdir(parents=True)
    (folder / "rl" / "__init__.py").touch()
    (folder / "loose.py").touch()
    assert modules("lprl_workload", tmp_path) == {"rl", "loose"} and "loose" not in layered("lprl_workload")[0]


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_is_imported_in_its_room_only(library: str) -> None:
    rooms = tuple(f"{room}." for room in LIBRARIES[library])
    assert [module for module in importers(library) if not f"{module}.".startswith(rooms)] == []


def test_torch_is_imported_by_the_pods_side_only() -> None:
    assert {room.partition(".")[0] for room in importers("torch")} == {"lprl_workload", "lprl_fixtures", "lprl_sglang_cpu"}


@pytest.mark.parametrize("library", LIBRARIES)
def test_the_contract_of_a_library_names_every_other_room(library: str) -> None:
    (section,) = (s for s in map(contracts().__getitem__, contracts().sections()) if s.get("name", "").startswith(NAMED[library]))
    packages = {room.partition(".")[0] for room in LIBRARIES[library]}
    others = {f"{p}.{name}" for p in packages for name in modules(p) - {"__main__"}} - LIBRARIES[library]
    assert others <= set(section["source_modules"].split()) and library in section["forbidden_modules"].split()


NAMED = {
    "ray": "Ray lives",
    "kubernetes": "The API server",
    "sglang": "SGLang",
    "megatron": "Megatron",
    "transformer_engine": "Megatron",
    "triton": "Triton",
}
