"""What the contract says the images hold is what the workload makes."""

from typing import Any, get_args

import pytest

from lprl_api.catalog.images import HELD
from lprl_api.errors import UserError
from lprl_api.spec.algorithm import Optimizer
from lprl_api.spec.precision import Fp8, Precision
from lprl_api.spec.topology import Backends, TrainerLayout
from lprl_workload.launch import backends
from lprl_workload.train.megatron import installed

CHOICES = [(side, name) for side in ("trainer", "rollout") for name in get_args(Backends.model_fields[side].annotation)]


class Made(Exception):
    """A backend's factory was reached."""


class Run:
    """As much of a RunConfig as is read before a backend's own module is."""

    def __init__(self, side: str, name: str) -> None:
        self.backends = Backends(**{side: name})

    def __getattr__(self, name: str) -> Any:
        raise Made


def test_megatron_is_refused_on_gpus_without_transformer_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Backends(trainer="megatron")
    for accelerator in ("cpu", None):
        backends.check_accelerator(asked, accelerator)
    with pytest.raises(
        UserError, match=r"got megatron with topology\.accelerator H200-141GB; this workload's image has no TransformerEngine"
    ):
        backends.check_accelerator(asked, "H200-141GB")
    backends.check_accelerator(Backends(), "H200-141GB")
    monkeypatch.setattr(installed, "has_transformer_engine", lambda: True)
    backends.check_accelerator(asked, "H200-141GB")


UNDONE: dict[str, tuple[TrainerLayout, Optimizer, Precision]] = {
    "topology.trainer.context: got 2": (TrainerLayout(context=2), Optimizer(), Precision()),
    "topology.trainer.recompute: got selective": (TrainerLayout(recompute="selective"), Optimizer(), Precision()),
    "topology.trainer.hiddenDropout: got 0.1": (TrainerLayout(hidden_dropout=0.1, tensor=2), Optimizer(), Precision()),
    "precision.fp8.paramGather: got True": (TrainerLayout(), Optimizer(), Precision(fp8=Fp8(param_gather=True))),
    "optimizer.precisionAware: got True": (TrainerLayout(), Optimizer(precision_aware=True), Precision()),
}


@pytest.mark.parametrize("words", UNDONE)
def test_what_megatron_does_not_do_in_this_version_is_refused_by_field(words: str) -> None:
    with pytest.raises(UserError, match=rf"spec\.{words}; backends\.trainer megatron does not do that"):
        backends.check_fields(Backends(trainer="megatron"), "H200-141GB", *UNDONE[words])
    backends.check_fields(Backends(), "H200-141GB", *UNDONE[words])


def test_context_ranks_are_of_cpus() -> None:
    backends.check_fields(Backends(trainer="megatron"), "cpu", TrainerLayout(context=2), Optimizer(), Precision())
    with pytest.raises(UserError) as refused:
        backends.check_fields(Backends(trainer="megatron"), None, TrainerLayout(context=2), Optimizer(), Precision())
    assert refused.value.remedy == "use 1: sequences are cut over CPU ranks alone"


def test_what_presets_ask_of_megatron_is_done() -> None:
    layout = TrainerLayout(tensor=4, sequence_parallel=True, recompute="full", recompute_layers=1, expert=8)
    offloaded = Optimizer(cpu_offload=True, precision_aware=True)
    backends.check_fields(Backends(trainer="megatron"), "H200-141GB", layout, offloaded, Precision())


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
