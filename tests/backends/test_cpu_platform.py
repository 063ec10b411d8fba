"""An unmodified SGLang on a CPU computes what our own arithmetic computes of the same folder, loaded by its own loaders.

With test_second_load.py and test_rollout_contract.py, where weights are pushed, every architecture and format it claims there is compared:
what is pushed there as well (DeepSeek-V3 in BF16 and INT4, Moonlight, Qwen3-MoE in BF16) starts no server here.
"""

import json
import random
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from tests.backends.kept_sites import LOADED, Kind, Sites
from tests.backends.weight_site import Site

from lprl_api.model.formats import Bf16
from lprl_fixtures.shape import model_shape
from lprl_workload.hf.folder import read_folder
from lprl_workload.hf.served import ServedModel

PROMPT = [random.Random(7).randrange(3, 48) for _ in range(40)]
DRAWN = 16
MEDIAN = 1e-4
"""Of the differences of log-probabilities, in nats: float32 sums in another order. Seen: 1e-6."""
LARGEST, LARGEST_FP8 = 1e-4, 0.5
"""Of any of them. Seen: 4e-6. An FP8 activation on the edge between two codes is rounded to either one, which moves the log-probabilities
of that token and those behind it: seen in one response of five, up to 0.05."""


@dataclass(frozen=True)
class Served:
    kind: Kind
    site: Site
    folders: tuple[Path, ...]
    """What it was started with, and other weights of the same model and format."""

    def differences(self, folder: Path, scales: float | None = None) -> list[float]:
        """Differences of log-probabilities from our own arithmetic, in order of size; `scales`: of a quantizer that has no others."""
        ids, found = self.site.drawn(PROMPT, DRAWN)
        model = ServedModel(folder, self.site.fmt, model_shape(json.loads((folder / "config.json").read_text())), "cpu")
        for name, tensor in read_folder(folder):
            model.load([(name, torch.full_like(tensor, scales) if scales is not None and "scale" in name else tensor)])
        return sorted(abs(a - b) for a, b in zip(found, model.score(ids), strict=True))

    def agrees(self, folder: Path) -> bool:
        found = self.differences(folder)
        print(f"{self.kind}: differences of {middle(found):.1e} in the median, {found[-1]:.1e} at most")
        return middle(found) < MEDIAN and found[-1] < (LARGEST if self.site.fmt.activation_group is None else LARGEST_FP8)


def middle(found: list[float]) -> float:
    return found[len(found) // 2]


@pytest.fixture
def served(kind: Kind, sites: Sites) -> Served:
    kept = sites.of(kind)
    return Served(kind, kept.site, kept.folders)


pytestmark = pytest.mark.parametrize("kind", LOADED, ids=str)


def test_log_probs_are_those_of_our_own_arithmetic(served: Served) -> None:
    assert served.agrees(served.folders[0])


def test_scales_that_were_ignored_would_be_seen(served: Served) -> None:
    """What the test above is worth: other weights, and for quantised ones a platform that knows no scales, are far beyond its limits."""
    assert middle(served.differences(served.folders[1])) > 100 * MEDIAN
    if not isinstance(served.site.fmt, Bf16):
        assert middle(served.differences(served.folders[0], scales=0.01)) > 100 * MEDIAN


def test_weights_that_come_later_are_served_as_the_first_ones(served: Served) -> None:
    """Weights stay as the checkpoint has them; what is derived from them is derived again."""
    first, second = served.folders
    served.site.control.update_disk(str(second), flush=True)
    assert served.agrees(second)
    served.site.control.update_disk(str(first), flush=True)
    assert served.agrees(first)
