"""Fixtures of the in-memory world (world.py)."""

from typing import Any

import pytest
from tests.unit.lprl_operator.world import INSPECTION, SETTINGS, SHAPE, START, Crash, World, manifest

from lprl_api.rules.parse import parse_job
from lprl_operator.decide.observed import ObjectRef
from lprl_operator.resources.render import render


@pytest.fixture
def make_world() -> Any:
    """Factory of worlds: `make_world(document, seed=0, chaos=False)`."""
    return World


@pytest.fixture
def make_manifest() -> Any:
    """Factory of documents."""
    return manifest


@pytest.fixture
def lib() -> Any:
    """Constants of this file for tests (files here are not importable as modules)."""

    class Lib:
        pass

    lib: Any = Lib()
    lib.wanted = lambda document: render(parse_job(document), None, None, SETTINGS)
    lib.__dict__.update(START=START, SETTINGS=SETTINGS, SHAPE=SHAPE, INSPECTION=INSPECTION, Crash=Crash, ObjectRef=ObjectRef)
    return lib
