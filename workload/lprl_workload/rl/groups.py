"""What the loop asks of the two sides of a run. launch/local.py and launch/ray_cluster.py implement these.

A group hides ranks and engines: the loop hands over whole batches and gets whole answers, in the order it gave them. Tokens and
log-probabilities are handed over as references (episode.py): they go from the process that made them to the one that needs them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from lprl_api.derived.residency import EnginePart, TrainPart
from lprl_api.model.formats import WeightFormat
from lprl_workload.data import GenerationRequest, Metrics, SamplingParams, SyncReport
from lprl_workload.episode import BatchRef, Episode, EpisodeRef
from lprl_workload.io.parts import FileRecord
from lprl_workload.rollout.pool import Keeper
from lprl_workload.train.advantage import Moments, Rule
from lprl_workload.train.mismatch import MismatchSums
from lprl_workload.train.rank import Whose
from lprl_workload.train.step_plan import StepPlan


@dataclass(frozen=True, slots=True)
class Update:
    """The optimizer steps of one rollout."""

    batch: BatchRef
    values: tuple[float, ...]
    """One per episode; `rule` makes advantages of them on the rank."""
    rule: Rule
    plan: StepPlan
    steps: int | None = None
    """Rollout steps of the run as of now, which learning rates follow."""


class TrainGroup(Protocol):
    """All trainer ranks. Any method raises TrainerLostError when a rank died."""

    def logprobs(self, batch: BatchRef, of: Whose, temperature: float) -> tuple[tuple[Any, ...], list[MismatchSums]]:
        """Return references to the log-probabilities of the drawn tokens, float32 [R] per episode, under the current policy or the
        reference, and what they differ by from the rollout's, per episode.
        """

    def moments(self, batch: BatchRef, values: Sequence[float], rule: Rule) -> list[Moments]:
        """Return the moments of each episode's advantages under `rule`; the batch has both kinds of log-probabilities."""

    def train(self, update: Update, step: int) -> Metrics:
        """Do optimizer step `step` of the update's plan."""

    def set_correction(self, enabled: bool) -> None:
        """Switch truncated importance sampling on, or back to what is configured."""

    def push(self, version: int, strong: bool = False) -> SyncReport:
        """Quantise and send the weights to every engine that does not serve `version` yet; `strong`: compare checksums of every tensor.

        Raises WeightMismatchError, or EngineLostError when an engine died meanwhile.
        """

    def probe(self, ids: Sequence[int]) -> Sequence[float]:
        """Return the current policy's log-probabilities of ids[1:] given what precedes each, temperature 1."""

    def holds(self, version: int) -> bool:
        """Return whether the weights are still those that were last pushed, as `version`."""

    def sleep(self, parts: frozenset[TrainPart]) -> None:
        """Have every rank move parts of its state to host memory; what needs them must not be asked meanwhile. Saving may be."""

    def wake(self, parts: frozenset[TrainPart]) -> None:
        """Bring them back, bit for bit."""

    def begin_save(self, directory: Path) -> None:
        """Have every rank copy its part of the state (optimizer, masters, schedule, RNG) and begin to write it into the existing
        `directory`. Training may go on at once.
        """

    def finish_save(self, wait: bool) -> tuple[FileRecord, ...] | None:
        """Return the files that `begin_save` began once all ranks' are durable, or raise why they are not; None while some are being
        written, unless it is to `wait`.
        """

    def export(self, directory: Path) -> tuple[FileRecord, ...]:
        """Write the BF16 Hugging Face folder into the existing `directory`, durably; returns its files."""

    def load(self, directory: Path, records: Sequence[FileRecord]) -> None:
        """Restore what was saved and compare it with `records`. Raises DamagedError when a rank reads something else."""

    def rebuild(self) -> None:
        """Replace all ranks by fresh ones with the job's initial weights (after TrainerLostError)."""

    def close(self) -> None:
        """Stop every rank."""


class RolloutGroup(Protocol):
    """All rollout engines. Requests are dealt by load (rollout/pool.py); `generate` may run in several threads."""

    @property
    def living(self) -> int:
        """Engines that take work: admitted, and not lost since as far as is known."""

    def admit(self) -> None:
        """Let every engine that is not aside take work: all serve the same version, and are told here that they do."""

    def set_aside(self, count: int) -> int:
        """Take up to `count` engines out of batches, pauses, pushes and probes; returns how many, 0 where no other would be left."""

    def take_back(self, work: bool) -> None:
        """Undo `set_aside`. `work`: they serve what the others do and take batches at once; else they need the next push and `admit`."""

    def generate(
        self, requests: Sequence[GenerationRequest], params: SamplingParams, keeper: Keeper, aside: bool = False
    ) -> list[EpisodeRef]:
        """Return one episode per request, in order, as a reference to it. What a lost engine had open is dealt to others. `aside`: by
        the engines that are aside, else by those that are not.
        """

    def fetch(self, refs: Sequence[EpisodeRef]) -> list[Episode]:
        """Return the episodes themselves. Raises EngineLostError when some are gone with the node that held them."""

    def give_up(self, number: int) -> bool:
        """Deal nothing more to an engine that a push found lost; returns False when its loss was known."""

    def pause(self) -> None:
        """Have every engine stand still, its open requests kept; new ones wait. Raises EngineLostError."""

    def resume(self) -> None:
        """Go on after `pause`. Raises EngineLostError."""

    def abort(self) -> None:
        """End every open request with what it has drawn; waits for no engine, and those that are gone are none of its business."""

    def sleep(self, parts: frozenset[EnginePart]) -> None:
        """Have every engine free memory; weights that slept must be pushed again. A lost engine is no error here."""

    def wake(self, parts: frozenset[EnginePart]) -> None:
        """Undo `sleep`: `weights` before a push, `kv` before generation."""

    def replace_lost(self) -> list[int]:
        """Replace engines that died by fresh ones, which need weights and then `admit`; returns their numbers. Raises DeadlineError."""

    def copy_version(self, version: int) -> bool:
        """Bring engines that serve something older to `version` from engines that serve it; returns whether all do now."""

    def probe(self, ids: Sequence[int]) -> list[tuple[float, ...]]:
        """Return of every engine the log-probabilities of ids[1:], temperature 1."""

    def switch_format(self, fmt: WeightFormat) -> None:
        """Rebuild every engine to serve `fmt`; all need a push."""

    def close(self) -> None:
        """Stop every engine."""
