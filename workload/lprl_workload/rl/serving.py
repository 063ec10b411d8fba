"""The engines as the loop sees them: always serving the newest weights, lost ones replaced and brought up to date."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from lprl_api.model.formats import WeightFormat
from lprl_workload.data import GenerationRequest, SamplingParams, SyncReport
from lprl_workload.episode import Episode, EpisodeRef
from lprl_workload.process.errors import EngineLostError
from lprl_workload.process.movement import here
from lprl_workload.rl.groups import RolloutGroup, TrainGroup
from lprl_workload.rl.recovery import Budget

log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(slots=True)
class Serving:
    """Pushes and generates; a lost engine costs a replacement, not the step."""

    trainer: TrainGroup
    rollout: RolloutGroup
    budget: Budget
    format: WeightFormat
    """What the engines serve now."""
    pushed: int = -1
    """Newest version any engine was sent."""
    step: int = 0
    """Step the run is at, for the budget."""

    def generate(self, requests: Sequence[GenerationRequest], params: SamplingParams) -> list[EpisodeRef]:
        """Generate on all engines; equal requests give equal responses, whether or not an engine was lost meanwhile."""
        here.begin("generation", len(requests), "responses")
        return self._retrying(lambda: self.rollout.generate(requests, params), self._bring_up_to_date)

    def fetch(self, refs: Sequence[EpisodeRef]) -> list[Episode]:
        """Return episodes. Raises EngineLostError, which `collecting` answers, when some are gone with their node."""
        return self.rollout.fetch(refs)

    def collecting(self, action: Callable[[], T]) -> T:
        """Return what `action` makes by `generate` and `fetch`; done anew, with equal results, when a node took episodes with it."""
        return self._retrying(action, self._bring_up_to_date)

    def push(self, version: int) -> SyncReport:
        """Send the trainer's weights as `version` to every engine."""
        self.pushed = version
        return self._retrying(lambda: self.trainer.push(version), lambda: None)

    def serve(self, fmt: WeightFormat) -> None:
        """Change the served format when it is another one; needs a push afterwards."""
        if fmt == self.format:
            return
        self.format = fmt
        try:
            self.rollout.switch_format(fmt)
        except EngineLostError as lost:
            # The push that follows finds it missing, and its replacement is built for the new format.
            log.warning("engine %d lost while it changed to %s: %s", lost.engine, fmt.kind, lost)

    def _bring_up_to_date(self) -> None:
        self.push(self.pushed)
        self.rollout.wake()

    def _retrying(self, action: Callable[[], T], after_replacing: Callable[[], None]) -> T:
        lost_before = False
        while True:
            try:
                if lost_before:
                    self.rollout.replace_lost()
                    after_replacing()
                    lost_before = False
                return action()
            except EngineLostError as lost:
                log.warning("engine %d lost at step %d (%s); replacing it", lost.engine, self.step, lost)
                self.budget.spend(self.step, lost)
                here.begin(f"replacing engine {lost.engine}")
                lost_before = True
