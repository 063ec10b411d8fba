"""The engines as the loop sees them: always serving the newest weights, lost ones replaced and brought to the version being served.

What an engine that is lost while it generates had open goes to the others at once, and its replacement joins them when it is back.
Every push is checked by counts; the first, every one after a recovery and every n-th also by checksums, and then each engine scores a
fixed prompt before it is admitted to serve.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from lprl_api.model.formats import WeightFormat
from lprl_api.wire.runconfig import RunConfig
from lprl_workload.data import GenerationRequest, SamplingParams, SyncReport
from lprl_workload.episode import Episode, EpisodeRef
from lprl_workload.process.errors import EngineLostError, WeightMismatchError
from lprl_workload.process.movement import here
from lprl_workload.rl.device import SharedDevice, shares_devices
from lprl_workload.rl.groups import RolloutGroup, TrainGroup
from lprl_workload.rl.recovery import Budget
from lprl_workload.rl.refill import Refill
from lprl_workload.rl.together import Busy, Together
from lprl_workload.sync.probe import comparable, judge, probe_ids, trainer_limit

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
    beside: bool = False
    """Whether engines may come back while the trainer works (split placement); else `generate` returns with all of them there."""
    ahead: bool = False
    """Whether batches are made while the trainer works: then several threads are here, and requests are open during a push."""
    trained_steps: int = 0
    """Steps that the trainer's weights have behind them, for `made`."""
    made: dict[int, int] = field(default_factory=dict, init=False)
    """Steps that the weights of each version have behind them."""
    together: Together = field(default_factory=Together, init=False)
    busy: Busy = field(default_factory=Busy, init=False)
    _since: int = field(default=0, init=False)
    _aside: int | None = field(default=None, init=False)
    """Version that engines serve which are aside; None where none are."""
    _comes_back: bool = field(default=False, init=False)
    """Whether those take part in the next push again."""
    _charging: threading.Lock = field(default_factory=threading.Lock, init=False)
    _refill: Refill = field(init=False)
    shares: bool = False
    """Whether trainer and engines make room for each other on their devices."""
    device: SharedDevice = field(init=False)

    def __post_init__(self) -> None:
        self.device = SharedDevice(self.trainer, self.rollout, self.shares)
        self._refill = Refill(self.rollout, self._charge, probe_ids(self.vocab), self.together.engines)

    @classmethod
    def of(cls, run: RunConfig, trainer: TrainGroup, rollout: RolloutGroup) -> "Serving":
        """Return the engines of a run, before anything was pushed."""
        budget = Budget("engines", run.refill_steps)
        beside = run.ranks.placement == "split"
        verify, trained = run.weight_sync.verify_every, run.training_format
        ahead = run.algorithm.max_staleness > 0
        more = {"beside": beside, "ahead": ahead, "shares": shares_devices(run)}
        found = cls(trainer, rollout, budget, run.rollout_format, run.shape.vocab, verify, trained=trained, **more)
        found.busy = Busy(engines=run.ranks.engines)
        return found

    def generate(self, requests: Sequence[GenerationRequest], params: SamplingParams) -> list[EpisodeRef]:
        """Generate on all engines, whatever is lost meanwhile."""
        here.begin("generation", len(requests), "responses")
        with self.busy.call():
            found = self.rollout.generate(requests, params, self)
        if not self.beside:
            self._refill.settle()
        return found

    def lost(self, error: EngineLostError, left: int) -> None:
        """See `rollout.pool.Keeper`: have a replacement made, beside the work of those that are left."""
        self._charge(error)
        self.together.unless_dropped()
        if left:
            self._refill.want(self.pushed)

    def none_left(self) -> None:
        """See `rollout.pool.Keeper`: replace all engines; the trainer's weights go to them where they are still those being served."""
        with self.together.trainers_turn():  # of several threads that find nobody, one does it
            self._refill.settle()
            if not self.rollout.living:
                here.begin("replacing engines")
                self._restore()

    def fetch(self, refs: Sequence[EpisodeRef]) -> list[Episode]:
        """Return episodes. Raises EngineLostError, which `collecting` answers, when some are gone with their node."""
        return self.rollout.fetch(refs)

    def collecting(self, action: Callable[[], T]) -> T:
        """Return what `action` makes by `generate` and `fetch`; done anew, with equal results, when a node took episodes with it."""
        while True:
            try:
                return action()
            except EngineLostError as lost:
                self.together.unless_dropped()
                self._charge(lost)
                here.begin(f"replacing engine {lost.engine}")
                with self.together.trainers_turn():
                    self._refill.settle()
                    self._restore()

    def push(self, version: int) -> SyncReport:
        """Send the trainer's weights as `version` to every engine, wake them, and see that they serve these weights.

        Weights that did not arrive whole are sent once more, as the next version; the report says which is served.
        Raises WeightMismatchError when that fails as well.
        """
        self._refill.settle()
        with self.together.engines:
            try:
                return self._push(version)
            except WeightMismatchError as error:
                log.warning("weights of version %d were refused (%s); sending them again", version, error)
                self.doubtful = True
                return self._push(version + 1)

    def set_aside(self, count: int) -> int:
        """Have up to `count` engines keep the version they serve, for requests that are not those of batches; returns how many."""
        with self.together.engines:
            found = self.rollout.set_aside(count)
            self.busy.set_aside(found)
            self._aside, self._comes_back = self.pushed if found else None, False
            return found

    def take_back(self) -> None:
        """Have those take batches again: at once where no push passed them by, else with the next one."""
        with self.together.engines:
            self._comes_back = self._aside is not None
            if self._aside == self.pushed:
                self._let_back(work=True)

    def _let_back(self, work: bool) -> None:
        if self._comes_back:
            self.rollout.take_back(work)
            self.busy.set_aside(0)
            self._aside, self._comes_back = None, False

    def serve(self, fmt: WeightFormat) -> None:
        """Change the served format when it is another one; needs a push afterwards."""
        if fmt == self.format:
            return
        self.format, self.doubtful = fmt, True
        self.device.enter("sync")
        try:
            with self.together.engines:
                self.rollout.switch_format(fmt)
        except EngineLostError as lost:
            # The push that follows finds it missing, and its replacement is built for the new format.
            log.warning("engine %d lost while it changed to %s: %s", lost.engine, fmt.kind, lost)
        self.device.engines_were_built()

    def _push(self, version: int) -> SyncReport:
        self._let_back(work=False)
        self.pushed = version
        self._since += 1

        def attempt() -> SyncReport:
            strong = self.doubtful or self._since >= self.verify_every
            self.device.enter("sync")
            report = self._send(strong)
            if strong:
                self._verify()
            self.device.enter("rollout")
            self._let_work()
            return report

        try:
            return attempt()
        except EngineLostError as lost:
            self._charge_known(lost)
            return self._replaced(attempt)

    def _send(self, strong: bool) -> SyncReport:
        """Send the trainer's weights as version `pushed`; requests that are open stand still from here to `_let_work`."""
        if self.ahead:
            self.rollout.pause()
        report = self.trainer.push(self.pushed, strong)
        self.made[self.pushed] = self.trained_steps
        return report

    def _let_work(self) -> None:
        self.rollout.admit()
        if self.ahead:
            self.rollout.resume()

    def _verify(self) -> None:
        """Have every engine score the probe; raises WeightMismatchError when one does not serve what the trainer holds."""
        ids = probe_ids(self.vocab)
        judges = self.trainer.holds(self.pushed) and comparable(self.format, self.trained or self.format)
        wanted = self.trainer.probe(ids) if judges else None
        self.device.enter("rollout")  # a probe needs the KV cache, and no plan has room for that beside the trainer's weights
        if problem := judge(self.rollout.probe(ids), wanted, trainer_limit(self.format, self.trained or self.format)):
            raise WeightMismatchError(f"weights of version {self.pushed}: {problem}")
        self.doubtful, self._since = False, 0

    def _bring_up_to_date(self) -> None:
        """Give engines that came back the version being served: never the trainer's newer weights under its number."""
        self.device.enter("sync")
        if not self.rollout.copy_version(self.pushed):
            self.pushed += 0 if self.trainer.holds(self.pushed) else 1
            self._send(True)
        self._verify()
        self.device.enter("rollout")
        self._let_work()

    def _restore(self) -> None:
        """Replace what is lost and give it what is served. The trainer is free: engines may have to get it from there."""
        with self.together.engines:
            self._replaced(self._bring_up_to_date)

    def _charge_known(self, lost: EngineLostError) -> None:
        """Charge a loss that a push met, unless a thread that generates met it before."""
        if not self.ahead or self.rollout.give_up(lost.engine):
            self._charge(lost)
        here.begin(f"replacing engine {lost.engine}")

    def _charge(self, lost: EngineLostError) -> None:
        """Count a loss; raises RecoveryExhaustedError when the budget is spent."""
        with self._charging:
            log.warning("engine %d lost at step %d (%s); replacing it", lost.engine, self.step, lost)
            self.budget.spend(self.step, lost)
            self.doubtful = True

    def _replaced(self, action: Callable[[], T]) -> T:
        """Replace engines that are lost, then do `action`; both anew when another is lost."""
        while True:
            try:
                self.rollout.replace_lost()
                self.device.engines_were_built()
                return action()
            except EngineLostError as lost:
                self._charge_known(lost)
