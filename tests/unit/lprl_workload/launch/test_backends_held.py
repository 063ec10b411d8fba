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


def test_megatron_is_refused_where_it_does_not_run_yet() -> None:
    asked = Backends(trainer="megatron")
    for accelerator in ("cpu", None):
        backends.check_accelerator(asked, accelerator)
    with pytest.raises(UserError, match=r"got megatron with topology\.accelerator H200-141GB; it trains on CPU processes only"):
        backends.check_accelerator(asked, "H200-141GB")
    backends.check_accelerator(Backends(), "H200-141GB")


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
