"""What the contract says the images hold is what the workload makes."""

from typing import Any, get_args

import pytest

from lprl_api.catalog.images import HELD
from lprl_api.errors import UserError
from lprl_api.spec.topology import Backends
from lprl_workload.launch import backends

CHOICES = [(side, name) for side in ("trainer", "rollout") for name in get_args(Backends.model_fields[side].annotation)]


class Made(Exception):
    """A backend's factory was reached."""


class Run:
    """As much of a RunConfig as is read before a backend's own module is."""

    def __init__(self, side: str, name: str) -> None:
        self.backends = Backends(**{side: name})

    def __getattr__(self, name: str) -> Any:
        raise Made


@pytest.mark.parametrize(("side", "name"), CHOICES)
def test_the_catalogue_is_what_the_workload_makes(side: str, name: str) -> None:
    run: Any = Run(side, name)
    anything: Any = None
    with pytest.raises((UserError, AttributeError, Made)) as caught:
        if side == "trainer":
            backends.make_trainer(run, anything, anything)
        else:
            backends.make_engine(run, anything, anything, "cpu")
    assert (caught.type is not UserError) == (name in HELD[side]), caught.value
