"""Both groups in this process: unit tests, and machines without Ray. One trainer rank, `engines` engines."""

from collections.abc import Callable, Sequence
from pathlib import Path

from lprl_api.model.formats import WeightFormat
from lprl_api.wire.runconfig import RunConfig
from lprl_workload.checkpoint.hf_folder import write_trained
from lprl_workload.data import Completion, GenerationRequest, Metrics, SamplingParams, SyncReport, TrainSample
from lprl_workload.launch.deal import spans
from lprl_workload.launch.parts import collect, dealt, plan_of, response_tokens
from lprl_workload.quant.select import Selection
from lprl_workload.rl.groups import TokenValues
from lprl_workload.rollout.engine import RolloutEngine
from lprl_workload.sync.channel import push_weights
from lprl_workload.sync.channel_local import LocalChannel
from lprl_workload.train.actor import TrainActor


class LocalRolloutGroup:
    """RolloutGroup of engines in this process; `make` builds one for a format."""

    def __init__(self, make: Callable[[WeightFormat], RolloutEngine], count: int, fmt: WeightFormat, sleeps: bool = True) -> None:
        """Build `count` engines; `sleeps` false where trainer and engines need not make room for each other (a CPU)."""
        self._make, self._count, self._sleeps = make, count, sleeps
        self.format = fmt
        self.engines = [make(fmt) for _ in range(count)]

    def generate(self, requests: Sequence[GenerationRequest], params: SamplingParams) -> list[Completion]:
        """Generate engine by engine."""
        found: list[Completion] = []
        for engine, (first, last) in zip(self.engines, spans(len(requests), self._count), strict=True):
            if last > first:
                found += engine.generate(requests[first:last], params)
        return found

    def sleep(self) -> None:
        """Free the engines' caches."""
        for engine in self.engines if self._sleeps else ():
            engine.sleep()

    def wake(self) -> None:
        """Undo `sleep`."""
        for engine in self.engines if self._sleeps else ():
            engine.wake()

    def replace_lost(self) -> int:
        """Replace engines that do not answer healthy."""
        lost = [number for number, engine in enumerate(self.engines) if not engine.healthy()]
        for number in lost:
            self.engines[number].close()
            self.engines[number] = self._make(self.format)
        return len(lost)

    def switch_format(self, fmt: WeightFormat) -> None:
        """Build every engine anew."""
        self.close()
        self.format = fmt
        self.engines = [self._make(fmt) for _ in range(self._count)]

    def close(self) -> None:
        """Close every engine."""
        for engine in self.engines:
            engine.close()


class LocalTrainGroup:
    """TrainGroup of one rank in this process; `make` builds it with the job's initial weights."""

    def __init__(self, make: Callable[[], TrainActor], rollout: LocalRolloutGroup, run: RunConfig, model: Path) -> None:
        self._make, self._rollout, self._run, self._model = make, rollout, run, model
        self._actor = make()

    def logprobs(self, samples: Sequence[TrainSample], temperature: float) -> list[TokenValues]:
        """Ask the rank."""
        plan = plan_of(self._run, samples)
        return collect(plan, [self._actor.logprobs(dealt(plan, samples, 0), temperature)], len(samples))

    def reference_logprobs(self, samples: Sequence[TrainSample], temperature: float) -> list[TokenValues]:
        """Ask the rank."""
        plan = plan_of(self._run, samples)
        return collect(plan, [self._actor.reference_logprobs(dealt(plan, samples, 0), temperature)], len(samples))

    def train(self, samples: Sequence[TrainSample]) -> Metrics:
        """Train on the whole batch."""
        parts = dealt(plan_of(self._run, samples), samples, 0)
        return self._actor.train(parts, len(samples), response_tokens(samples))

    def set_correction(self, enabled: bool) -> None:
        """Tell the rank."""
        self._actor.set_correction(enabled)

    def push(self, version: int) -> SyncReport:
        """Push to the engines that do not serve `version` yet, in this process."""
        stale = [engine for engine in self._rollout.engines if engine.weight_version < version]
        fmt = self._rollout.format
        channel = LocalChannel(stale, self._run.weight_sync.bucket_bytes)
        return push_weights(channel, self._actor.export_weights(), fmt, Selection(fmt, self._run.shape), version)

    def save(self, directory: Path) -> None:
        """Save the rank."""
        self._actor.save(directory)

    def export(self, directory: Path) -> None:
        """Write the BF16 folder."""
        write_trained(directory, self._actor.export_weights(), self._model, self._run.shape)

    def load(self, directory: Path) -> None:
        """Load the rank."""
        self._actor.load(directory)

    def rebuild(self) -> None:
        """Build the rank anew."""
        self._actor.close()
        self._actor = self._make()

    def close(self) -> None:
        """Close the rank."""
        self._actor.close()
