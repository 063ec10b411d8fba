"""What the loop asks of the two sides of a run. launch/local.py and launch/ray_cluster.py implement these.

A group hides ranks and engines: the loop hands over whole batches and gets whole answers, in the order it gave them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from lprl_api.model.formats import WeightFormat
from lprl_workload.data import Completion, GenerationRequest, Metrics, SamplingParams, SyncReport, TrainSample

TokenValues = tuple[float, ...]


class TrainGroup(Protocol):
    """All trainer ranks. Any method raises TrainerLostError when a rank died."""

    def logprobs(self, samples: Sequence[TrainSample], temperature: float) -> list[TokenValues]:
        """Return the current policy's log-probabilities of the response tokens, [R] per sample."""

    def reference_logprobs(self, samples: Sequence[TrainSample], temperature: float) -> list[TokenValues]:
        """Return the reference policy's."""

    def train(self, samples: Sequence[TrainSample]) -> Metrics:
        """Do one optimizer step on a global batch, dealt out over the ranks."""

    def set_correction(self, enabled: bool) -> None:
        """Switch truncated importance sampling on, or back to what is configured."""

    def push(self, version: int) -> SyncReport:
        """Export, quantise and send the weights to every engine that does not serve `version` yet.

        Raises WeightMismatchError, or EngineLostError when an engine died meanwhile.
        """

    def save(self, directory: Path) -> None:
        """Write optimizer, masters, schedule and RNG of every rank into the existing `directory`."""

    def export(self, directory: Path) -> None:
        """Write the BF16 Hugging Face folder into the existing `directory`."""

    def load(self, directory: Path) -> None:
        """Restore what `save` wrote."""

    def rebuild(self) -> None:
        """Replace all ranks by fresh ones with the job's initial weights (after TrainerLostError)."""

    def close(self) -> None:
        """Stop every rank."""


class RolloutGroup(Protocol):
    """All rollout engines. Requests are dealt out by position, so equal requests give equal answers."""

    def generate(self, requests: Sequence[GenerationRequest], params: SamplingParams) -> list[Completion]:
        """Return one completion per request, in order. Raises EngineLostError."""

    def sleep(self) -> None:
        """Colocated: free memory for the trainer; split: nothing."""

    def wake(self) -> None:
        """Undo `sleep`."""

    def replace_lost(self) -> int:
        """Replace engines that died by fresh ones, which need a push; returns how many. Raises DeadlineError."""

    def switch_format(self, fmt: WeightFormat) -> None:
        """Rebuild every engine to serve `fmt`; all need a push."""

    def close(self) -> None:
        """Stop every engine."""
