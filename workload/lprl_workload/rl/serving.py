"""The engines as the loop sees them: always serving the newest weights, lost ones replaced and brought to the version being served.

Every push is checked by counts; the first, every one after a recovery and every n-th also by checksums, and then each engine scores a
fixed prompt before it is admitted to serve.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from lprl_api.model.formats import WeightFormat
from lprl_api.wire.runconfig import RunConfig
from lprl_workload.data import GenerationRequest, SamplingParams, SyncReport
from lprl_workload.episode import Episode, EpisodeRef
from lprl_workload.process.errors import EngineLostError, WeightMismatchError
from lprl_workload.process.movement import here
from lprl_workload.rl.groups import RolloutGroup, TrainGroup
from lprl_workload.rl.recovery import Budget
from lprl_workload.sync.probe import comparable, judge, probe_ids

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
    vocab: int
    """Of the model: tokens of the probe lie below it."""
    verify_every: int = 1
    """Pushes from one full verification to the next."""
    pushed: int = -1
    """Newest version any engine was sent."""
    step: int = 0
    """Step the run is at, for the budget."""
    doubtful: bool = True
    """Whether the next push is verified fully, whatever its turn."""
    trained: WeightFormat | None = None
    """What the trainer computes with; None where that is what the engines serve."""
    _since: int = field(default=0, init=False)

    @classmethod
    def of(cls, run: RunConfig, trainer: TrainGroup, rollout: RolloutGroup) -> "Serving":
        """Return the engines of a run, before anything was pushed."""
        budget = Budget("engines", run.refill_steps)
        verify = run.weight_sync.verify_every
        return cls(trainer, rollout, budget, run.rollout_format, run.shape.vocab, verify, trained=run.training_format)

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
        """Send the trainer's weights as `version` to every engine, wake them, and see that they serve these weights.

        Weights that did not arrive whole are sent once more, as the next version; the report says which is served.
        Raises WeightMismatchError when that fails as well.
        """
        try:
            return self._push(version)
        except WeightMismatchError as error:
            log.warning("weights of version %d were refused (%s); sending them again", version, error)
            self.doubtful = True
            return self._push(version + 1)

    def serve(self, fmt: WeightFormat) -> None:
        """Change the served format when it is another one; needs a push afterwards."""
        if fmt == self.format:
            return
        self.format, self.doubtful = fmt, True
        try:
            self.rollout.switch_format(fmt)
        except EngineLostError as lost:
            # The push that follows finds it missing, and its replacement is built for the new format.
            log.warning("engine %d lost while it changed to %s: %s", lost.engine, fmt.kind, lost)

    def _push(self, version: int) -> SyncReport:
        self.pushed = version
        self._since += 1

        def attempt() -> SyncReport:
            strong = self.doubtful or self._since >= self.verify_every
            report = self.trainer.push(version, strong)
            self.rollout.wake()
            if strong:
                self._admit()
            return report

        return self._retrying(attempt, lambda: None)

    def _admit(self) -> None:
        """Have every engine score the probe; raises WeightMismatchError when one does not serve what the trainer holds."""
        ids = probe_ids(self.vocab)
        judges = self.trainer.holds(self.pushed) and comparable(self.format, self.trained or self.format)
        wanted = self.trainer.probe(ids) if judges else None
        if problem := judge(self.rollout.probe(ids), wanted):
            raise WeightMismatchError(f"weights of version {self.pushed}: {problem}")
        self.doubtful, self._since = False, 0

    def _bring_up_to_date(self) -> None:
        """Give engines that came back the version being served: never the trainer's newer weights under its number."""
        if not self.rollout.copy_version(self.pushed):
            self.pushed += 0 if self.trainer.holds(self.pushed) else 1
            self.trainer.push(self.pushed, True)
        self.rollout.wake()
        self._admit()

    def _retrying(self, action: Callable[[], T], after_replacing: Callable[[], None]) -> T:
        lost_before = False
        while True:
            try:
                if lost_before:
                    self.doubtful = True
                    self.rollout.replace_lost()
                    after_replacing()
                    lost_before = False
                return action()
            except EngineLostError as lost:
                log.warning("engine %d lost at step %d (%s); replacing it", lost.engine, self.step, lost)
                self.budget.spend(self.step, lost)
                here.begin(f"replacing engine {lost.engine}")
                lost_before = True
