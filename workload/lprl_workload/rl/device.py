"""The devices that trainer and engines share, and whose turn it is: what has to leave leaves before anything comes."""

import logging

from lprl_api.derived.residency import ENGINE_PARTS, RESIDENT, TRAIN_PARTS, Phase, Resident
from lprl_api.wire.runconfig import RunConfig
from lprl_workload.rl.groups import RolloutGroup, TrainGroup

log = logging.getLogger(__name__)


def shares_devices(run: RunConfig) -> bool:
    """Return whether trainer and engines take turns on their devices. On a CPU they share the host's memory anyway."""
    return run.ranks.placement == "colocated" and run.ranks.accelerator != "cpu"


class SharedDevice:
    """Moves parts of trainer and engines (api: derived/residency.py). Where nothing is shared, nothing moves."""

    def __init__(self, trainer: TrainGroup, rollout: RolloutGroup, shared: bool) -> None:
        """At first the trainer has the devices, and the engines sleep."""
        self._trainer, self._rollout, self._shared = trainer, rollout, shared
        self._up = RESIDENT["training"]

    def enter(self, phase: Phase) -> None:
        """Have on the devices what `phase` needs, and nothing else. Raises TrainerLostError."""
        wanted, up = RESIDENT[phase], self._up
        if not self._shared or wanted == up:
            return
        if parts := up.trainer - wanted.trainer:
            self._trainer.sleep(parts)
        if engine_parts := up.engine - wanted.engine:
            self._rollout.sleep(engine_parts)
        if parts := wanted.trainer - up.trainer:
            self._trainer.wake(parts)
        if engine_parts := wanted.engine - up.engine:
            self._rollout.wake(engine_parts)
        self._up = wanted

    def make_way(self) -> None:
        """Clear the devices for a trainer that is built anew and will have all of its parts there."""
        if self._shared:
            self._rollout.sleep(ENGINE_PARTS)
        self._up = Resident(TRAIN_PARTS, frozenset())

    def engines_were_built(self) -> None:
        """Have new engines, which came with all their parts, sleep as the others do."""
        if self._shared and (parts := ENGINE_PARTS - self._up.engine):
            self._rollout.sleep(parts)
