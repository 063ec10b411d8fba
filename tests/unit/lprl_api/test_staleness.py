"""What a spec is told about samples of older weights."""

import copy
from pathlib import Path
from typing import Any

import yaml

from lprl_api.rules.advice import advise
from lprl_api.rules.check import check
from lprl_api.rules.parse import parse_job
from lprl_operator.plan.plan import make_plan

SPLIT: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "illegal" / "bases.yaml").read_text())["split"]


def split(**algorithm: Any) -> Any:
    document = copy.deepcopy(SPLIT)
    document["spec"]["algorithm"] |= algorithm
    return parse_job(document).spec


def test_staleness_without_a_correction_is_warned_of_and_with_one_is_not() -> None:
    spec = split(maxStaleness=2)
    assert check(spec) == []
    (warning,) = [found for found in advise(spec) if found.path == "spec.algorithm.correction.type"]
    assert "maxStaleness 2" in warning.need and "tis" in warning.need
    for legal in (split(), split(maxStaleness=2, correction={"type": "tis"})):
        assert not [found for found in advise(legal) if found.path == "spec.algorithm.correction.type"]


def test_batches_that_wait_have_room_in_the_object_store() -> None:
    """Long responses, so that the store's least size does not decide."""
    stores = []
    for allowed in (0, 4):
        spec = split(maxStaleness=allowed, rolloutBatchSize=8192, samplesPerPrompt=64)
        (store,) = [item.bytes for item in make_plan(spec).host if item.cause == "object store"]
        stores.append(store)
    assert stores[1] == 3 * stores[0]
